"""What a fitted power law says."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri, stdtrit

from polycode_plugins.errors import DataError
from polycode_plugins.metrics.spectrum.law.domain import Domain
from polycode_plugins.metrics.spectrum.law.matching import FLAT


@dataclass(frozen=True)
class Break:
    """Where two power laws describe a spectrum best, and how much better than one.

    Attributes:
        rank: first rank of the second law.
        slope_before, slope_after: slopes of both laws in the population (negative: decaying); None
            where the break is not significant or no law is found on that side.
        statistic: F of two laws against one, the largest over all ranks.
        p_value: share of single power laws that reach it by chance; not below 1/2000.
    """

    rank: int
    slope_before: float | None
    slope_after: float | None
    statistic: float
    p_value: float


@dataclass(frozen=True)
class Spread:
    """What an interval of the exponent is made of, at whichever level.

    Attributes:
        exponent: as it was estimated.
        squared: its square before it was held to be positive, which is what a spectrum close to
            flat depends on.
        error: standard error for Gaussian rows.
        freedom: degrees of freedom of the scatter around the matched curve.
        dispersion: that scatter, in units of the variance that Gaussian samples have.
    """

    exponent: float
    squared: float
    error: float
    freedom: int
    dispersion: float

    def interval(self, level: float) -> tuple[float, float]:
        """(low, high) that holds the population's exponent with the probability `level`.

        The expected noise gives one, with the normal quantile. Noise above it shows as scatter
        around the curve and gives another, with Student's; the wider of both holds.
        """
        upper = (1 + level) / 2
        scatter = float(stdtrit(self.freedom, upper) * np.sqrt(self.dispersion))
        half = max(float(ndtri(upper)), scatter) * self.error
        if self.exponent >= FLAT:
            return max(0.0, self.exponent - half), self.exponent + half
        # Close to flat it is the square that is estimated evenly.
        half *= 2 * self.exponent
        low, high = (float(np.sqrt(max(0.0, self.squared + side))) for side in (-half, half))
        return min(low, self.exponent), max(high, self.exponent)


@dataclass(frozen=True)
class PowerLawFit:
    """A power law fitted to a sample spectrum.

    Attributes:
        fit: name of the estimator.
        exponent: of lambda_i ~ i^-exponent; positive for a decaying spectrum.
        interval: 95% interval (low, high) of the population's exponent; None for the published
            regressions, whose own intervals ignore bias and correlation, and from `Spectrum` also
            for rows so heavy-tailed that too few effective ones are left to say, or whose
            dependence changes with the direction in ways that so few cannot show (`untested`).
        ranks: first and last rank used, from 1.
        r_squared: share of the variance of the log spectrum over these ranks that the fit explains
            (for "debiased", the expected sample curve), with the weights of the fit.
        intercept, line_slope: natural log of height at rank 1, and slope, of a straight line
            through the sample's log eigenvalues, for drawing. The line of a published fit is the
            fit; that of "debiased" differs from `slope` by the bias of the sample.
        dispersion: scatter around the matched curve in units of the variance that Gaussian samples
            have; well above 1 means heavier noise or a spectrum that is no power law. None for a
            published regression of a spectrum that no power law could be matched to.
        n_samples, width: what the correction was made for.
        broken: whether one power law is refuted (p < 0.05).
        irregular: whether the eigenvalues scatter around the matched curve more than samples of
            Gaussian rows do (chi squared, p < 0.01): the spectrum is no power law, in steps or
            waves say, or the rows are far from Gaussian. The interval is widened accordingly.
        evidence: the best break, also where it is not significant; None if there were too few
            ranks to look for one, or no power law to compare it with.
        tail_exponent: decay found beyond the last rank; None where no eigenvalue was seen there,
            and then the same law is assumed to go on.
        epsilon: of the Huber loss; None for other fits.
        untested: why the samples could not tell one power law from others; None where they could.
        domain: the widest range of ranks over which one power law describes the population's
            spectrum, whatever `ranks` were asked for; None where none spans 0.3 decades.
        level: nominal level of `interval`: above 0.95 where a stream was looked at several times
            and ended when the interval was narrow enough, so that it holds with 95% for all of
            that.
        spreads: what intervals of other levels are made of, see `at_level`; of each way to take
            the rows' correlation.
        deviation: root mean square [decades] by which the population's spectrum is off one law over
            `ranks`, with what noise adds taken off; None where it could not be corrected.
    """

    fit: str
    exponent: float
    interval: tuple[float, float] | None
    ranks: tuple[int, int]
    r_squared: float
    intercept: float
    line_slope: float
    dispersion: float | None
    n_samples: float
    width: int
    broken: bool
    irregular: bool = False
    evidence: Break | None = None
    tail_exponent: float | None = None
    epsilon: float | None = None
    untested: str | None = None
    domain: Domain | None = None
    deviation: float | None = None
    level: float = 0.95
    spreads: tuple[Spread, ...] = ()

    def at_level(self, level: float) -> PowerLawFit:
        """The same fit with the interval of another level; without one where it has none.

        Raises:
            DataError: for a level that is not between 0 and 1, or a fit of an earlier version.
        """
        if not 0 < level < 1:
            raise DataError(f"a level lies between 0 and 1, not {level!r}")
        if self.interval is None:
            return replace(self, level=level)
        if not self.spreads:
            raise DataError(
                "this fit was made by an earlier version, which kept its 95% interval alone; "
                "compute it anew"
            )
        ends = [one.interval(level) for one in self.spreads]
        interval = min(low for low, _ in ends), max(high for _, high in ends)
        return replace(self, level=level, interval=interval)

    @property
    def slope(self) -> float:
        """The exponent with the sign of Marshall & Kirchner 2024: -exponent."""
        return -self.exponent

    @property
    def verdict(self) -> str:
        """ "broken" (no single power law, p < 0.05), "irregular" (too much scatter for one), "not
        tested" (too few ranks to tell, or see `untested`), or "one power law" (nothing speaks
        against it).

        The levels of both tests hold for Gaussian rows. With enough samples every real spectrum is
        "broken": `grade` says how much of one law there is.
        """
        if self.untested is not None:
            return "not tested"
        if self.broken:
            return "broken"
        if self.irregular:
            return "irregular"
        return "not tested" if self.evidence is None else "one power law"

    @property
    def grade(self) -> str:
        """How much of one law there is, as in "one law over ranks 3 to 210, 1.8 decades, 41% of the
        variance; over ranks 11-500 it is off one law by 0.12 decades"."""
        said = "no power law over as much as 0.3 decades"
        if self.domain is not None:
            said = self.domain.sentence
        if self.deviation is None:
            return "not known" if self.domain is None else said
        first, last = self.ranks
        return (
            f"{said}; over ranks {first}-{last} it is off one law by {self.deviation:.2f} decades"
        )

    def describe(self) -> str:
        """One sentence: the exponent, how sure it is, and whether one number describes it."""
        first, last = self.ranks
        said = f"exponent {self.exponent:.3f} over ranks {first}-{last}"
        if self.interval is not None:
            said += f" (95% interval {self.interval[0]:.3f} to {self.interval[1]:.3f}"
            said += ")" if self.level == 0.95 else ", for all the looks at the stream)"
        elif self.fit == "debiased" and self.untested is not None:
            said += " (no interval, for the same reason as below)"
        elif self.fit == "debiased":
            said += " (no interval: the rows are too heavy-tailed, or too sparse, for so few)"
        else:
            said += f" (fit '{self.fit}', not corrected for {self.n_samples:g} samples)"
        if self.irregular and not self.broken and self.dispersion is not None:
            said += (
                f", around which the eigenvalues scatter with {self.dispersion:.1f} times the "
                "variance that samples give them, so that it may be no power law"
            )
        if self.untested is not None:
            return f"{said}; whether it is one power law was not tested: {self.untested}."
        if self.evidence is None:
            return f"{said}; it could not be tested whether it is one power law."
        e = self.evidence
        chance = f"p < {1 / 1000:g}" if e.p_value < 1e-3 else f"p = {e.p_value:.2g}"
        if not self.broken:
            return f"{said}; no break of the power law was found ({chance})."
        before, after = (
            "unknown" if slope is None else f"{slope:.2f}"
            for slope in (e.slope_before, e.slope_after)
        )
        return (
            f"{said}, but it is not one power law: the slope is {before} before rank {e.rank} and "
            f"{after} after ({chance}), so read the curve and not the exponent."
        )
