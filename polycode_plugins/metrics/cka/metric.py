"""The `cka` metric: how alike the codes of all sites of a run are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from polycode_plugins.activations import Activations, Site
from polycode_plugins.errors import DataError
from polycode_plugins.metrics.base import Accumulator
from polycode_plugins.metrics.cka.alignment import GROUPS
from polycode_plugins.metrics.cka.result import CKAResult
from polycode_plugins.metrics.cka.samples import KeptSite, kept_site, own_documents, pair_table
from polycode_plugins.metrics.inputs import as_activations, check_finite
from polycode_plugins.metrics.pairs import PairMetric, Partner
from polycode_plugins.metrics.reservoir import Reservoir

RESERVOIR = "reservoir"


@dataclass(frozen=True)
class CKA(PairMetric):
    """Debiased linear centred kernel alignment between sites, with intervals.

    Every site keeps the same samples, chosen by a hash of row and position, so that runs of other
    models on the same rows can be compared with this one afterwards: `pc.cka(run_a, run_b)`. A
    sample is a token, or a place of an image, read at corresponding pixels where sites differ in
    resolution; each row (window, image) gives as many as any other before one gives more. All pairs
    that the estimate is made of are of different documents, so that documents whose tokens resemble
    each other do not make codes look alike.

    Kornblith et al. 2019 (linear CKA); Song et al. 2012, eq. 4, and Murphy et al. 2024 (unbiased).

    Attributes:
        samples: most samples kept at each site: samples x width x 4 bytes. The interval says what
            they leave open.
        seed: of the choice. Runs that are to be compared need the same.
    """

    name: ClassVar[str] = "cka"
    result: ClassVar[type[CKAResult]] = CKAResult

    samples: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise DataError(f"samples is how many are kept, at least 1, not {self.samples}")

    def measure(  # type: ignore[override]
        self, x: Any, y: Any = None, *, groups: Any = None
    ) -> CKAResult:
        """CKA of two arrays of activations of the same samples; `result.to_previous` has it.

        All samples are used, whatever `samples` says.

        Args:
            x: [samples, features], torch or NumPy.
            y: [samples, other features].
            groups: [samples] of integers: samples of one group (a document) depend on each other;
                without it all are independent.

        Raises:
            DataError: for unequal lengths, NaN, too few samples, or an array that does not vary.
        """
        if y is None:
            raise DataError("CKA compares two arrays: CKA().measure(x, y)")
        sides = {name: as_activations(values) for name, values in (("x", x), ("y", y))}
        for name, side in sides.items():
            check_finite(side, name)
        one, two = (side.matrix().detach().float().cpu() for side in sides.values())
        if len(one) != len(two):
            raise DataError(
                f"x has {len(one)} samples and y has {len(two)}; give the same samples in the same "
                "order"
            )
        count = np.arange(len(one))
        keys = np.stack([count, np.zeros_like(count)], axis=1)
        names = own_documents(count) if groups is None else np.asarray(groups).reshape(-1)
        if len(names) != len(one):
            raise DataError(f"groups names {len(names)} samples and there are {len(one)}")
        return self._of([KeptSite(n, keys, None, names, v) for n, v in (("x", one), ("y", two))])[
            "y"
        ]

    def accumulators(self) -> Mapping[str, Accumulator]:
        """One reservoir, which keeps the same samples at every site."""
        return {RESERVOIR: Reservoir(self.samples, self.seed)}

    def partners_of(self, site: Site, sites: Sequence[Site]) -> Sequence[Site]:
        """All other sites."""
        return [other for other in sites if other.name != site.name]

    def compute(self, accumulators: Mapping[str, Accumulator], site: Site) -> CKAResult:
        """The result of a site that is alone: what it keeps can be compared with other runs."""
        return self.compute_pairs(accumulators, site, ())

    def compute_pairs(
        self, accumulators: Mapping[str, Accumulator], site: Site, partners: Sequence[Partner]
    ) -> CKAResult:
        """CKA of the site with itself and all others.

        Raises:
            DataError: where samples are too few, or a site does not vary.
        """
        return self.compute_all([Partner(site, accumulators), *partners])[site.name]

    def compute_all(self, sites: Sequence[Partner]) -> Mapping[str, CKAResult]:
        """CKA of all pairs of sites at once, which costs as much as two of them one by one.

        Raises:
            DataError: where samples are too few, or a site does not vary.
        """
        ordered = sorted(sites, key=lambda one: one.site.depth)
        return self._of(
            [
                kept_site(
                    one.site.name, one.site.axes, cast(Reservoir, one.accumulators[RESERVOIR])
                )
                for one in ordered
            ]
        )

    def working_memory(self, batches: Mapping[str, Activations], rows: int | None) -> int:
        """Centred copies of all samples, and products of one group with all others."""
        kept, widths = self.samples, [0]
        for batch in batches.values():
            samples, width = batch.matrix("samples").shape
            if rows is not None:
                kept = min(kept, rows * samples // max(len(batch.values), 1))
            widths.append(width)
        group = -(-kept // min(GROUPS, max(kept, 1)))
        products = len(batches) * kept * (2 * group * 4 + 2 * GROUPS * 8)
        return kept * (4 * sum(widths) + 3 * 8 * max(widths)) + products

    @staticmethod
    def _of(kept: Sequence[KeptSite]) -> dict[str, CKAResult]:
        table, names = pair_table(kept), [site.name for site in kept]
        return {name: CKAResult.of(table, names, at) for at, name in enumerate(names)}
