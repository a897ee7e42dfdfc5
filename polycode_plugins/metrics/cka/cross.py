"""CKA between the sites of one model and those of another, on the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from polycode_plugins.metrics.cka.alignment import LEAST_FOR_INTERVAL, Floats, Integers
from polycode_plugins.metrics.cka.samples import KeptSite, pair_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class CrossCKA:
    """Debiased linear CKA of every site of one run with every site of another; see `CKAResult`.

    Attributes:
        first, second: names of the sites of each run, in depth order.
        cka: float64 [first, second], NaN where two sites have no sample in common.
        low, high: float64 [first, second], ends of the 95% interval; NaN where documents are too
            few for one.
        naive: float64 [first, second], CKA of the samples as they are.
        samples: int64 [first, second], samples that both kept.
        warnings: sentences on what makes the numbers doubtful; empty is good.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    cka: Floats
    low: Floats
    high: Floats
    naive: Floats
    samples: Integers
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        known = self.cka[np.isfinite(self.cka)]
        span = f"{known.min():.2f} to {known.max():.2f}" if known.size else "undefined"
        return f"CrossCKA({len(self.first)} x {len(self.second)} sites, {span})"

    def same(self) -> dict[str, tuple[float, float, float]]:
        """(CKA, low, high) of every site with the one of the same name in the other run."""
        places = [(i, self.second.index(n)) for i, n in enumerate(self.first) if n in self.second]
        return {
            self.first[at[0]]: (float(self.cka[at]), float(self.low[at]), float(self.high[at]))
            for at in places
        }

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values; undefined numbers become None."""

        def listed(values: Floats) -> list[list[float | None]]:
            return [[float(v) if np.isfinite(v) else None for v in line] for line in values]

        arrays = {n: listed(getattr(self, n)) for n in ("cka", "low", "high", "naive")}
        return {
            "first": list(self.first),
            "second": list(self.second),
            **arrays,
            "samples": self.samples.tolist(),
            "warnings": list(self.warnings),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """One row per pair of sites: first, second, cka, low, high, naive, samples."""
        import pandas as pd

        one, other = np.indices(self.cka.shape)
        return pd.DataFrame(
            {
                "first": [self.first[i] for i in one.flat],
                "second": [self.second[j] for j in other.flat],
                **{n: getattr(self, n).ravel() for n in ("cka", "low", "high", "naive", "samples")},
            }
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """The matrix, rows being the first run's sites."""
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(layout="constrained")
        image = ax.imshow(self.cka, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        ax.figure.colorbar(image, ax=ax, label="CKA")
        ax.set_xlabel("site of the second run, by depth")
        ax.set_ylabel("site of the first run, by depth")
        return ax


def cross_table(first: Sequence[KeptSite], second: Sequence[KeptSite]) -> CrossCKA:
    """CKA of each of `first` with each of `second`.

    Raises:
        DataError: where samples are too few, or a site does not vary.
    """
    table = pair_table([*first, *second])
    part = np.ix_(range(len(first)), range(len(first), len(first) + len(second)))
    units = set(table.units[part].flat) - {""}
    said = []
    if units - {"documents"}:
        said.append(
            "there are too few documents to compare pairs of different ones, so "
            f"{' or '.join(sorted(units - {'documents'}))} were taken as independent: where those "
            "of one document resemble each other, CKA is too high. There is no interval there; "
            "give more documents."
        )
    elif bool((np.isnan(table.low[part]) & ~np.isnan(table.values[part])).any()):
        said.append(
            f"the documents are worth {table.worth[part].min():.1f} of one length, too few for an "
            f"interval, which needs {LEAST_FOR_INTERVAL:.0f}; give more documents."
        )
    ruled = [s.name for s, count in zip([*first, *second], table.ruled, strict=True) if count]
    if ruled:
        said.append(
            f"at {', '.join(ruled[:3])}{' and others' if ruled[3:] else ''} at most one sample in "
            "40 makes half of the variance, so CKA compares these above all; leave them out "
            "(special tokens, the first position) to compare the others."
        )
    if table.apart[part].any():
        said.append(
            "some sites are at other positions of a row (another stream of the model), so there is "
            "no CKA between them."
        )
    return CrossCKA(
        first=tuple(site.name for site in first),
        second=tuple(site.name for site in second),
        cka=table.values[part],
        low=table.low[part],
        high=table.high[part],
        naive=table.naive[part],
        samples=table.samples[part],
        warnings=tuple(said),
    )
