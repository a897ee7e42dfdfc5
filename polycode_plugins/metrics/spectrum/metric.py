"""The `spectrum` metric: eigenvalues of a layer's covariance and the power law they follow.

Marshall & Kirchner 2024, section on the eigenspectrum and figure 3. The paper writes
lambda_i = i^alpha with alpha < 0; Stringer et al. 2019 and alpha-ReQ write i^-alpha. Here `slope`
has the paper's sign (negative for a decaying spectrum) and `exponent` = -slope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polycode_plugins.activations import Activations, Positions, Site
from polycode_plugins.errors import DataError
from polycode_plugins.metrics.accumulators import Covariance, Precision
from polycode_plugins.metrics.base import Accumulator, Metric, Result
from polycode_plugins.metrics.influences import Influences
from polycode_plugins.metrics.spectrum.doubts import spectrum_doubts
from polycode_plugins.metrics.spectrum.effective_dimensions import (
    EffectiveDimensions,
    effective_dimensions,
)
from polycode_plugins.metrics.spectrum.first_direction import FirstDirection, first_direction
from polycode_plugins.metrics.spectrum.influences import influences_of
from polycode_plugins.metrics.spectrum.law.domain import Domain
from polycode_plugins.metrics.spectrum.law.power_law import (
    DEFAULT_RANKS,
    MIN_RANKS,
    PowerLawFit,
    checked_ranks,
    fit_power_law,
)
from polycode_plugins.metrics.spectrum.priority_sample import PrioritySample
from polycode_plugins.metrics.spectrum.rows.correlation import RowCorrelation
from polycode_plugins.metrics.spectrum.rows.dependence import RowDependence
from polycode_plugins.metrics.spectrum.rows.groups import RowGroups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from polycode_plugins.metrics.chapter import View
    from polycode_plugins.pages.pages import Part

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class SpectrumResult(Result):
    """Eigenspectrum of one site.

    Attributes:
        eigenvalues: float64 [rank], of the sample covariance (normalised by n - 1), descending, in
            squared units of the activations; at most n_samples - 1 of them are not zero.
        power_law: the fit asked for, with its range of ranks, goodness, and evidence of a break.
        n_samples: samples the covariance was computed from.
        width: features per sample.
        participation_ratio: (sum lambda)^2 / sum lambda^2 of the population, corrected for the
            finite number of samples; between 1 and width.
        participation_ratio_naive: the same of the sample eigenvalues, biased low.
        effective_rank: exp of the entropy [nats] of the normalised singular values (RankMe, Garrido
            et al. 2023) of the population, corrected for the finite number of samples; between 1
            and width. None where they are too few to say.
        effective_rank_naive: the same of the sample eigenvalues, biased low.
        dimensions: these and the other measures of the spectrum, each with its interval.
        first_direction: the direction of most variance, and the rows that make it; None in results
            of earlier versions.
        effective_samples: independent samples that would spread the spectrum as the correlated
            ones did; n_samples where no correlation was found. The fit "debiased" and the
            participation ratio are corrected for it.
        effective_from: "documents" if it was measured between documents (or rows of the batch);
            "not measured" if there were fewer than 8 of them or 60 samples, one holds most of
            the samples, or fewer than 3 directions vary; then independence is assumed.
        tails: 1 for Gaussian rows; how much more the spectrum is spread if the surplus in the
            scatter of single rows is due to heavy-tailed norms of whole rows, and not to features
            that are mostly zero, which is not known: the interval covers both. None where not
            measured.
        positions: whether positions counted as "samples" or "features".
        eigenvectors: float64 [k, width], unit rows, where they were asked for; not saved.
    """

    reading: ClassVar[str] = (
        "A steep decay (exponent well above 1) means that a few directions carry the code: it is "
        "redundant and smooth; an exponent below 1 means an efficient, high-dimensional code."
    )
    documentation: ClassVar[str] = "metrics.html#spectrum-the-exponent"
    headline: ClassVar[tuple[str, ...]] = (
        "exponent",
        "interval_low",
        "interval_high",
        "verdict",
        "participation_ratio",
        "effective_rank",
        "n_samples",
    )
    units: ClassVar[Mapping[str, str]] = {"total_variance": "activation²"}
    related: ClassVar[tuple[str, ...]] = ("exponent", "participation_ratio")
    mapped: ClassVar[tuple[str, ...]] = ("exponent", "participation_ratio", "effective_rank")

    eigenvalues: Floats
    power_law: PowerLawFit
    n_samples: int
    width: int
    participation_ratio: float
    participation_ratio_naive: float
    effective_rank: float | None
    effective_rank_naive: float
    effective_samples: float
    effective_from: str
    tails: float | None
    dimensions: EffectiveDimensions
    first_direction: FirstDirection | None
    positions: str = "samples"
    eigenvectors: Floats | None = field(default=None, metadata={"saved": False})

    @property
    def exponent(self) -> float:
        """Decay of the power law lambda_i ~ i^-exponent; positive for a decaying spectrum."""
        return self.power_law.exponent

    @property
    def slope(self) -> float:
        """The exponent with the sign of Marshall & Kirchner 2024: -exponent."""
        return self.power_law.slope

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval (low, high) of the exponent; None for fits that have no honest one."""
        return self.power_law.interval

    @property
    def irregular(self) -> bool:
        """Whether the eigenvalues scatter around the law more than Gaussian rows make them."""
        return self.power_law.irregular

    @property
    def verdict(self) -> str:
        """Whether one power law describes the spectrum, see `PowerLawFit.verdict`."""
        return self.power_law.verdict

    @property
    def stable_rank(self) -> float | None:
        """Sum of the eigenvalues over the largest, of the population; None where not known."""
        return self.dimensions.stable_rank.value

    @property
    def spectral_entropy(self) -> float | None:
        """Entropy [nats] of the normalised eigenvalues of the population; None where not known."""
        return self.dimensions.spectral_entropy.value

    @property
    def matrix_entropy(self) -> float | None:
        """Matrix-based entropy of order 2 [bits] of the population; None where not known."""
        return self.dimensions.matrix_entropy.value

    @property
    def rank_90(self) -> float | None:
        """Leading directions of the population with 90% of its variance; None where not known."""
        return self.dimensions.rank_90.value

    @property
    def rank_95(self) -> float | None:
        """The same for 95%."""
        return self.dimensions.rank_95.value

    @property
    def rank_99(self) -> float | None:
        """The same for 99%."""
        return self.dimensions.rank_99.value

    @property
    def warnings(self) -> tuple[str, ...]:
        """What keeps the numbers from meaning what they seem to."""
        return spectrum_doubts(self)

    @property
    def total_variance(self) -> float:
        """Sum of the eigenvalues."""
        return float(self.eigenvalues.sum())

    @property
    def explained_variance(self) -> Floats:
        """float64 [rank]: cumulative share of the total variance, ending at 1."""
        return np.cumsum(self.eigenvalues) / self.total_variance

    @classmethod
    def findings(cls, view: View) -> Sequence[str]:
        """From where to where exponents and dimensions run."""
        from polycode_plugins.metrics.spectrum.chapter import findings

        return [findings(view.sites, view.results)]

    @classmethod
    def chapter(cls, view: View) -> Sequence[Part]:
        """Exponents, spectra and dimensions by depth, and what keeps them from being read."""
        from polycode_plugins.metrics.spectrum.chapter import spectrum_parts

        return spectrum_parts(view)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SpectrumResult:
        """The result whose `to_dict` gave `fields`."""
        values = {name: value for name, value in fields.items() if name != "warnings"}
        if "dimensions" not in values:  # of a version with the effective rank of the sample alone
            square = max(1.0, values["n_samples"] / values["effective_samples"])
            found = effective_dimensions(
                np.asarray(values["eigenvalues"], dtype=np.float64),
                values["n_samples"],
                width=values["width"],
                rows=RowCorrelation.from_moments(square, square**2),
            )
            values["dimensions"] = found
            values["effective_rank_naive"] = values["effective_rank"]
            values["effective_rank"] = found.effective_rank.value
        made = super().from_dict({"first_direction": None, **values})
        if made.eigenvalues.ndim != 1 or not len(made.eigenvalues):
            raise ValueError("the eigenvalues are no list of numbers")
        return made

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values, and the warnings."""
        return {**super().to_dict(), "warnings": list(self.warnings)}

    def scalars(self) -> dict[str, float | int | str | bool | None]:
        """What fits into a table: exponent, slope, interval, summaries, sizes."""
        low, high = self.interval if self.interval is not None else (None, None)
        return {
            "exponent": self.exponent,
            "slope": self.slope,
            "interval_low": low,
            "interval_high": high,
            "fit": self.power_law.fit,
            "r_squared": self.power_law.r_squared,
            "verdict": self.verdict,
            "broken": self.power_law.broken,
            "irregular": self.irregular,
            "deviation": self.power_law.deviation,
            **_domain_scalars(self.power_law.domain),
            "participation_ratio": self.participation_ratio,
            "participation_ratio_naive": self.participation_ratio_naive,
            "effective_rank": self.effective_rank,
            "effective_rank_naive": self.effective_rank_naive,
            **{
                name: one.value
                for name, one in self.dimensions.named().items()
                if name not in ("participation_ratio", "effective_rank")
            },
            "first_share": float(self.eigenvalues[0] / self.total_variance),
            "half_rows": None if self.first_direction is None else self.first_direction.half_rows,
            "total_variance": self.total_variance,
            "n_samples": self.n_samples,
            "effective_samples": self.effective_samples,
            "width": self.width,
        }

    def intervals(self) -> Mapping[str, tuple[float, float]]:
        """Of the exponent, and of the measures of the spectrum that have one."""
        found = {n: one.interval for n, one in self.dimensions.named().items() if one.interval}
        if self.interval is not None:
            low, high = self.interval
            found = {"exponent": (low, high), "slope": (-high, -low), **found}
        return found

    def plot(self, ax: Axes | None = None) -> Axes:
        """Eigenvalues against rank on log axes, with the fitted line over its range of ranks."""
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(layout="constrained")
        ranks = np.arange(1, self.eigenvalues.size + 1)
        shown = self.eigenvalues > self.eigenvalues[0] * 1e-14
        ax.loglog(ranks[shown], self.eigenvalues[shown], ".", ms=3, color="#4c72b0")
        first, last = self.power_law.ranks
        line = np.array([first, last], dtype=np.float64)
        broken = " (broken)" if self.power_law.broken else ""
        ax.loglog(
            line,
            np.exp(self.power_law.intercept) * line**self.power_law.line_slope,
            color="#c44e52",
            label=f"exponent {self.exponent:.2f}{broken}",
        )
        ax.set_xlabel("rank")
        ax.set_ylabel("eigenvalue")
        ax.legend(frameon=False)
        return ax


def _domain_scalars(found: Domain | None) -> dict[str, float | int | None]:
    low, high = (None, None) if found is None else found.interval
    names = ("first", "last", "exponent", "decades", "share")
    return {
        **{f"domain_{name}": None if found is None else getattr(found, name) for name in names},
        "domain_exponent_low": low,
        "domain_exponent_high": high,
    }


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
        dimensions = _dimensions(eigenvalues, covariance, dependence, direction)
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
) -> EffectiveDimensions:
    """The measures; their intervals hold with heavy tails of whole rows and without."""
    varying = int((covariance.variances() > 0).sum())

    found = effective_dimensions(
        eigenvalues,
        covariance.n_samples,
        width=varying,
        rows=dependence.correlation,
        widest=dependence.widest,
    )
    if direction.rules:
        return found.without_intervals(
            "a few rows make the first direction, and intervals are for rows that are alike"
        )
    return found
