"""The `spectrum` metric: eigenvalues of a layer's covariance and the power law they follow.

Marshall & Kirchner 2024, section on the eigenspectrum and figure 3. The paper writes
lambda_i = i^alpha with alpha < 0; Stringer et al. 2019 and alpha-ReQ write i^-alpha. Here `slope`
has the paper's sign (negative for a decaying spectrum) and `exponent` = -slope.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polycode_plugins.activations import Activations, Positions, Site
from polycode_plugins.errors import DataError
from polycode_plugins.metrics.accumulators import Covariance, Precision
from polycode_plugins.metrics.base import Accumulator, Metric, Result
from polycode_plugins.metrics.influences import Influences
from polycode_plugins.metrics.spectrum.effective_dimensions import (
    EffectiveDimensions,
    effective_dimensions,
)
from polycode_plugins.metrics.spectrum.first_direction import FirstDirection, first_direction
from polycode_plugins.metrics.spectrum.influences import influences_of
from polycode_plugins.metrics.spectrum.law.power_law import (
    DEFAULT_RANKS,
    MIN_RANKS,
    PowerLawFit,
    checked_ranks,
    fit_power_law,
)
from polycode_plugins.metrics.spectrum.priority_sample import PrioritySample
from polycode_plugins.metrics.spectrum.result import SpectrumResult
from polycode_plugins.metrics.spectrum.row_spread import spread_of_kept
from polycode_plugins.metrics.spectrum.rows.dependence import RowDependence
from polycode_plugins.metrics.spectrum.rows.groups import RowGroups

if TYPE_CHECKING:
    pass

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum(Metric):
    """Eigenvalues of the centred covariance and their power law.

    Attributes:
        fit: "debiased" (default), or the published regressions "huber", "stringer", "alpha-req",
            which are biased unless n_samples is far above the width.
        ranks: first and last rank of the fit, 1-based, at least 5 of them; clipped to the ranks
            there are. None for the last means all, None for both the fit's own.
        eigenvectors: how many leading eigenvectors to compute with the result.
        positions: for sites with positions, whether these are samples or features.
        precision: of the covariance's products, see `Covariance`.
        epsilon: of the Huber loss (scikit-learn's HuberRegressor); not stated in the paper.
        seed: of the null distribution of the test for a break.
    """

    name: ClassVar[str] = "spectrum"
    side_by_side: ClassVar[bool] = True
    result: ClassVar[type[Result]] = SpectrumResult

    fit: Literal["debiased", "huber", "stringer", "alpha-req"] = "debiased"
    ranks: tuple[int, int | None] | None = None
    eigenvectors: int = 0
    positions: Positions = "samples"
    precision: Precision = "float64"
    epsilon: float = 1.35
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eigenvectors < 0 or self.seed < 0:
            raise DataError("eigenvectors and seed are whole numbers from 0")
        if self.ranks is not None:
            first, last = checked_ranks(self.ranks)
            if last is not None and last - first + 1 < MIN_RANKS:
                raise DataError(
                    f"ranks {self.ranks} are {last - first + 1} and a fit needs {MIN_RANKS}; give "
                    f"a wider range, for example ranks=({first}, None)"
                )

    def admit_site(self, site: Site, batch: Activations) -> None:
        """Refuse a site with fewer features than the fit has ranks; see `Metric.admit_site`."""
        width = batch.matrix(self.positions).shape[1]
        first, _ = self.ranks or DEFAULT_RANKS[self.fit]
        if width - first + 1 >= MIN_RANKS:
            return
        features = "feature" if width == 1 else "features"
        raise DataError(
            f"it has {width} {features}, and the fit needs {MIN_RANKS} eigenvalues from rank "
            f"{first} on" + (" (ranks=(1, None) has them)" if width >= MIN_RANKS else "")
        )

    def accumulators(self) -> Mapping[str, Accumulator]:
        """A covariance, what tells how dependent the samples are, and those of most weight."""
        return {
            "covariance": Covariance(self.positions, self.precision),
            "groups": RowGroups(self.positions),
            "rows": PrioritySample(self.positions),
        }

    def compute(self, accumulators: Mapping[str, Accumulator], site: Site) -> SpectrumResult:
        """The spectrum at one site.

        Raises:
            DataError: for fewer than three samples, a constant layer, or too few ranks to fit.
        """
        covariance = cast(Covariance, accumulators["covariance"])
        with covariance.reading():
            return self._read(
                covariance,
                cast(RowGroups, accumulators["groups"]),
                cast(PrioritySample, accumulators["rows"]),
            )

    def influences(
        self, accumulators: Mapping[str, Accumulator], result: Result, samples: Tensor
    ) -> Influences:
        """On the exponent and the measures that have an interval; see `Metric.influences`."""
        assert isinstance(result, SpectrumResult)
        covariance = cast(Covariance, accumulators["covariance"])
        groups = cast(RowGroups, accumulators["groups"])
        return influences_of(result, covariance, groups, samples)

    def _read(
        self, covariance: Covariance, groups: RowGroups, kept: PrioritySample
    ) -> SpectrumResult:
        rounding = float(np.finfo(np.float64).eps ** 2 * covariance.mean().square().sum())
        width, n = covariance.width, covariance.n_samples
        assert width is not None
        constant = DataError(
            f"the activations are constant over {n} samples, so there is no spectrum; leave the "
            "site out"
        )
        if covariance.total_variance() <= rounding:
            raise constant
        vectors = None
        if self.eigenvectors:
            found = covariance.eigenvectors()[1]
            vectors = found[: min(self.eigenvectors, len(found))].cpu().numpy()
        # Before the eigenvalues, which come with its eigenvectors.
        dependence = groups.dependence(covariance)
        eigenvalues = covariance.eigenvalues().cpu().numpy()
        if eigenvalues[0] <= rounding:
            raise constant
        if n < 3:
            raise DataError(f"a spectrum needs at least 3 samples and {n} came; give more data")
        effective = max(3.0, dependence.effective(n))
        direction = first_direction(
            covariance,
            kept,
            eigenvalues,
            rows=dependence.correlation,
            vector=None if vectors is None else torch.from_numpy(vectors[0]),
        )
        spread = spread_of_kept(covariance, kept, dependence.correlation)
        dimensions = _dimensions(eigenvalues, covariance, dependence, direction, spread)
        ratio = dimensions.participation_ratio
        assert ratio.value is not None
        return SpectrumResult(
            eigenvalues=eigenvalues,
            power_law=self._power_law(eigenvalues, n, width, dependence),
            n_samples=n,
            width=width,
            participation_ratio=ratio.value,
            participation_ratio_naive=ratio.naive,
            effective_rank=dimensions.effective_rank.value,
            effective_rank_naive=dimensions.effective_rank.naive,
            effective_samples=effective,
            effective_from="documents" if dependence.measured else "not measured",
            tails=dependence.tails,
            dimensions=dimensions,
            first_direction=direction,
            positions=self.positions,
            row_spread=spread,
            eigenvectors=vectors,
        )

    def _power_law(
        self, eigenvalues: Floats, n: int, width: int, dependence: RowDependence
    ) -> PowerLawFit:
        """The fit; its interval holds with heavy tails of whole rows and without."""
        return fit_power_law(
            eigenvalues,
            n,
            width=width,
            fit=self.fit,
            ranks=self.ranks,
            epsilon=self.epsilon,
            seed=self.seed,
            rows=dependence.correlation,
            widest=dependence.widest,
            untested=dependence.untested(n),
        )


def _dimensions(
    eigenvalues: Floats,
    covariance: Covariance,
    dependence: RowDependence,
    direction: FirstDirection,
    spread: float,
) -> EffectiveDimensions:
    """The measures; their intervals hold with heavy tails of whole rows and without."""
    varying = int((covariance.variances() > 0).sum())
    found = effective_dimensions(
        eigenvalues,
        covariance.n_samples,
        width=varying,
        rows=dependence.correlation,
        widest=dependence.widest,
        spread=spread,
    )
    if direction.rules:
        return found.without_intervals(
            "a few rows make the first direction, and intervals are for rows that are alike"
        )
    return found
