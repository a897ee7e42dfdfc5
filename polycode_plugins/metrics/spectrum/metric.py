"""The `spectrum` metric: eigenvalues of a layer's covariance and the power law they follow.

Marshall & Kirchner 2024, section on the eigenspectrum and figure 3. The paper writes
lambda_i = i^alpha with alpha < 0; Stringer et al. 2019 and alpha-ReQ write i^-alpha. Here `slope`
has the paper's sign (negative for a decaying spectrum) and `exponent` = -slope.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.activations import Activations, Positions, Site
from polycode_plugins.errors import DataError
from polycode_plugins.metrics.accumulators import Covariance, Precision
from polycode_plugins.metrics.base import Accumulator, Metric, Result
from polycode_plugins.metrics.spectrum.domain import Domain
from polycode_plugins.metrics.spectrum.power_law import (
    DEFAULT_RANKS,
    MIN_RANKS,
    PowerLawFit,
    checked_ranks,
    fit_power_law,
)
from polycode_plugins.metrics.spectrum.row_dependence import RowDependence
from polycode_plugins.metrics.spectrum.row_groups import RowGroups
from polycode_plugins.metrics.spectrum.summaries import effective_rank, participation_ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
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
            et al. 2023), of the sample; between 1 and width.
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

    eigenvalues: Floats
    power_law: PowerLawFit
    n_samples: int
    width: int
    participation_ratio: float
    participation_ratio_naive: float
    effective_rank: float
    effective_samples: float
    effective_from: str
    tails: float | None
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
    def total_variance(self) -> float:
        """Sum of the eigenvalues."""
        return float(self.eigenvalues.sum())

    @property
    def explained_variance(self) -> Floats:
        """float64 [rank]: cumulative share of the total variance, ending at 1."""
        return np.cumsum(self.eigenvalues) / self.total_variance

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SpectrumResult:
        """The result whose `to_dict` gave `fields`."""
        values = dict(fields)
        values["eigenvalues"] = np.asarray(values["eigenvalues"], dtype=np.float64)
        values["power_law"] = PowerLawFit.from_dict(values["power_law"])
        return cls(**values)

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
            "total_variance": self.total_variance,
            "n_samples": self.n_samples,
            "effective_samples": self.effective_samples,
            "width": self.width,
        }

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
        """A covariance, and what tells how dependent the samples are."""
        return {
            "covariance": Covariance(self.positions, self.precision),
            "groups": RowGroups(self.positions),
        }

    def compute(self, accumulators: Mapping[str, Accumulator], site: Site) -> SpectrumResult:
        """The spectrum at one site.

        Raises:
            DataError: for fewer than three samples, a constant layer, or too few ranks to fit.
        """
        covariance = cast(Covariance, accumulators["covariance"])
        vectors = None
        if self.eigenvectors:
            values, found = covariance.eigenvectors()
            vectors = found[: min(self.eigenvectors, len(found))].cpu().numpy()
        else:
            values = covariance.eigenvalues()
        eigenvalues = values.cpu().numpy()
        width, n = covariance.width, covariance.n_samples
        assert width is not None
        mean_square = float(covariance.mean().square().sum())
        if eigenvalues[0] <= np.finfo(np.float64).eps ** 2 * (mean_square + 1e-300):
            raise DataError(
                f"the activations are constant over {n} samples, so there is no spectrum; leave "
                "the site out"
            )
        if n < 3:
            raise DataError(f"a spectrum needs at least 3 samples and {n} came; give more data")
        dependence = cast(RowGroups, accumulators["groups"]).dependence(covariance)
        effective = max(3.0, dependence.effective(n))
        # The strong directions decide it, and what samples are worth there.
        worth = n / dependence.correlation.mean_square(eigenvalues)
        ratio = participation_ratio(eigenvalues, max(3.0, worth), width=width)
        return SpectrumResult(
            eigenvalues=eigenvalues,
            power_law=self._power_law(eigenvalues, n, width, dependence),
            n_samples=n,
            width=width,
            participation_ratio=ratio.corrected,
            participation_ratio_naive=ratio.naive,
            effective_rank=effective_rank(eigenvalues),
            effective_samples=effective,
            effective_from="documents" if dependence.measured else "not measured",
            tails=dependence.tails,
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
