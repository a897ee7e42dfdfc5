"""The result of the `spectrum` metric: eigenvalues of one site and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.metrics.base import Result
from polycode_plugins.metrics.spectrum.doubts import spectrum_doubts
from polycode_plugins.metrics.spectrum.effective_dimensions import (
    EffectiveDimensions,
    effective_dimensions,
)
from polycode_plugins.metrics.spectrum.first_direction import FirstDirection
from polycode_plugins.metrics.spectrum.law.domain import Domain
from polycode_plugins.metrics.spectrum.law.power_law import (
    PowerLawFit,
)
from polycode_plugins.metrics.spectrum.rows.correlation import RowCorrelation

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
        row_spread: how many times the variance of what Gaussian rows add to the error of
            `dimensions` the rows that were kept add; 1 where it is not evidently more. Intervals
            of `dimensions` are widened for it.
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
    row_spread: float = 1.0
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
