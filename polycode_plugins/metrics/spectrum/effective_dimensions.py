"""How many directions a code uses: measures of one spectrum, corrected for the number of samples.

All are of the covariance of the population, so they compare between runs with different numbers of
samples; the same measure of the sample stands beside each as `naive`. Intervals hold for Gaussian
rows (and for rows correlated as `rows` says), and are widened by what single rows add beyond that;
what cannot be corrected is None, with a sentence. `benchmarks/effective_dimensions.py` measures
bias and coverage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polycode_plugins.metrics.processes import apart
from polycode_plugins.metrics.spectrum.rows.correlation import INDEPENDENT, RowCorrelation
from polycode_plugins.metrics.spectrum.rows.degrees_of_freedom import (
    DegreesOfFreedom,
    RidgeSums,
)
from polycode_plugins.metrics.spectrum.summaries import (
    checked_eigenvalues,
    checked_samples,
    effective_rank,
    explained_variance,
    participation_ratio,
    spectral_entropy,
    trace_powers,
)

Array = NDArray[np.float64]

ROUNDING = 16 * float(np.finfo(np.float64).eps)  # per unit of width
OPEN = 0.25  # of an entropy [nats]: what fewer samples than features may leave open
LEAST_SAMPLES = 30  # effective ones, for intervals
DOUBTS = 6  # of the rows' correlation, the strongest
UNLIKE = 3.0  # times as much as others some directions may depend on documents, for weak ones
STANDS_APART = 5.0  # standard errors of log(first / second eigenvalue)
SHARES = (0.9, 0.95, 0.99)
LEVELS = 120  # of the population that fits the curve
SMOOTH = 0.003  # weight of the counts' second differences: next to nothing, against single spikes


@dataclass(frozen=True)
class Estimate:
    """One number of the population.

    Attributes:
        value: corrected for the number of samples; None where that cannot be done.
        interval: 95% interval (low, high), for Gaussian rows, wider where rows that are kept add
            evidently more to the error than such; None where there is none.
        naive: the same of the sample's own eigenvalues.
        why: why there is no value, or no interval; "" where there are both.
    """

    value: float | None
    interval: tuple[float, float] | None
    naive: float
    why: str = ""


@dataclass(frozen=True)
class EffectiveDimensions:
    """Measures of one spectrum, normalised to p_i = lambda_i / sum lambda.

    Attributes:
        participation_ratio: 1 / sum p_i^2, between 1 and width.
        effective_rank: exp of the entropy of the normalised singular values, which are
            sqrt(lambda_i) (RankMe, Garrido et al. 2023), between 1 and width.
        stable_rank: sum lambda / lambda_1, the squared Frobenius norm over the squared spectral
            norm of the centred data (Rudelson & Vershynin 2007), between 1 and width.
        spectral_entropy: -sum p_i ln p_i [nats], between 0 and ln(width): matrix-based entropy of
            order 1 (von Neumann's).
        matrix_entropy: matrix-based entropy of order 2, -log2 sum p_i^2 [bits], between 0 and
            log2(width) (Giraldo, Rao & Principe 2015, equation 8, with the linear kernel of
            centred rows); 2 to its power is the participation ratio.
        rank_90, rank_95, rank_99: leading directions that hold this share of the variance.
    """

    participation_ratio: Estimate
    effective_rank: Estimate
    stable_rank: Estimate
    spectral_entropy: Estimate
    matrix_entropy: Estimate
    rank_90: Estimate
    rank_95: Estimate
    rank_99: Estimate

    def named(self) -> dict[str, Estimate]:
        """The measures by name, in the order of the fields."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def without_intervals(self, why: str) -> EffectiveDimensions:
        """The same, with a reason why no interval holds."""
        return EffectiveDimensions(
            **{
                name: replace(one, interval=None, why=one.why or why)
                for name, one in self.named().items()
            }
        )

    def beside(self, other: EffectiveDimensions) -> EffectiveDimensions:
        """The same, with intervals that reach over those of `other` too."""

        def widest(own: Estimate, second: Estimate) -> Estimate:
            if own.interval is None or second.interval is None:
                return replace(own, interval=None, why=own.why or second.why)
            low, high = zip(own.interval, second.interval, strict=True)
            return replace(own, interval=(min(low), max(high)))

        others = other.named()
        return EffectiveDimensions(
            **{name: widest(one, others[name]) for name, one in self.named().items()}
        )


@apart
def effective_dimensions(
    eigenvalues: ArrayLike,
    n_samples: float,
    *,
    width: int | None = None,
    rows: RowCorrelation = INDEPENDENT,
    widest: RowCorrelation | None = None,
    spread: float = 1.0,
) -> EffectiveDimensions:
    """All measures of one sample spectrum.

    Args:
        eigenvalues: [k], descending, of the sample covariance; all that are not zero.
        n_samples: samples it was computed from.
        width: features that are not constant; default: the number of eigenvalues.
        rows: how the samples are correlated with one another; independent unless given.
        widest: another correlation with which the intervals are to hold as well.
        spread: the variance of what single rows add to errors, over that of Gaussian ones, see
            `row_spread`.

    Raises:
        DataError: for eigenvalues no covariance has, or fewer than 3 samples.
    """
    values = checked_eigenvalues(eigenvalues)
    dof = checked_samples(n_samples, 3) - 1
    width = len(values) if width is None else max(int(width), 1)
    values = values / values[0]
    values = values[values > ROUNDING * width]
    width = max(width, len(values))
    sums = RidgeSums.of(values, width)
    found = _measures(_Sample(values, sums, dof, rows, spread))
    if widest is not None and widest != rows:
        found = found.beside(_measures(_Sample(values, sums, dof, widest)))
    return found


def _measures(sample: _Sample) -> EffectiveDimensions:
    values = sample.values
    ratio = sample.participation_ratio()
    first, second, third = sample.variance_ranks()
    return EffectiveDimensions(
        participation_ratio=ratio,
        effective_rank=sample.entropy(
            of_roots=True, naive=float(np.log(effective_rank(values))), shown=np.exp
        ),
        stable_rank=sample.stable_rank(),
        spectral_entropy=sample.entropy(
            of_roots=False, naive=spectral_entropy(values), shown=lambda x: x
        ),
        matrix_entropy=_mapped(ratio, np.log2),
        rank_90=first,
        rank_95=second,
        rank_99=third,
    )


class _Sample:
    """Eigenvalues of a sample, the largest of them 1, and what they are of."""

    def __init__(
        self,
        values: Array,
        sums: RidgeSums,
        dof: float,
        rows: RowCorrelation,
        spread: float = 1.0,
    ) -> None:
        self.values = values
        self.dof = dof
        self.width = width = sums.width
        self.rows = rows
        self.spread = spread
        # What samples are worth where the variance is.
        self.square = rows.mean_square(values)
        self.effective = max(2.0, (dof + 1) / self.square - 1)
        self.squares = rows.squares(width)[: len(values)]
        self.few = (
            f"fewer than {LEAST_SAMPLES} independent samples give no interval"
            if self.effective + 1 < LEAST_SAMPLES
            else ""
        )
        self.curve = DegreesOfFreedom.of(sums, dof, rows)
        self.doubted = [DegreesOfFreedom.of(sums, dof, one) for one in rows.doubted[:DOUBTS]]

    def entropy(self, *, of_roots: bool, naive: float, shown: Callable[[Any], Any]) -> Estimate:
        """An entropy, shown as a function of it."""
        found = self.curve.entropy(of_roots=of_roots)
        most = float(np.log(self.width))
        low, value, high = (min(max(v, 0.0), most) for v in (found.low, found.value, found.high))
        if high - low > OPEN:
            return Estimate(
                None,
                None,
                float(shown(naive)),
                f"{self._worth()} for {self.width} features see too little of the weak directions: "
                f"it may be anything from {shown(low):.3g} to {shown(high):.3g}",
            )
        why = self.few or (self._unlike() if of_roots else "")
        if why:
            return Estimate(float(shown(value)), None, float(shown(naive)), why)
        moved = [one.entropy(of_roots=of_roots).value - found.value for one in self.doubted]
        p = self.values / self.values.sum()
        taken = np.sqrt(self.square / self.rows.square)  # the curve is of the rows' mean
        error = self.curve.error(found) * taken * self._more(p * (np.log(p) - p @ np.log(p)))
        error = float(np.sqrt(error**2 + np.sum(np.square(moved))))
        return _mapped(
            Estimate(value, (max(low - 1.96 * error, 0.0), min(high + 1.96 * error, most)), naive),
            shown,
        )

    def participation_ratio(self) -> Estimate:
        """From unbiased estimates of tr Sigma^k."""
        n = self.effective
        found = participation_ratio(self.values, n + 1, width=self.width)
        one, two, three, four = trace_powers(self.values, n, self.width)
        if self.few or two <= 0:
            why = self.few or "the samples show no direction more than another"
            return Estimate(found.corrected, None, found.naive, why)
        # 2 log tr Sigma - log tr Sigma^2, for Gaussian rows.
        variance = 8 * two / one**2 + 8 * four / two**2 - 16 * three / (one * two)
        error = np.sqrt(max(variance, 0.0) / n + 4 / n**2)
        error *= self._more(self.values / one - self.values**2 / two)
        if self.rows.square_error:
            error = np.hypot(error, self._by_samples(found.corrected))
        low, high = (found.corrected * np.exp(s * 1.96 * error) for s in (-1, 1))
        interval = (max(1.0, float(low)), min(float(self.width), float(high)))
        return Estimate(found.corrected, interval, found.naive)

    def _by_samples(self, ratio: float) -> float:
        """How much log(participation ratio) moves with the doubt about the effective samples."""
        fewer = (self.dof + 1) / (self.square * (1 + self.rows.square_error / self.rows.square))
        moved = participation_ratio(self.values, max(fewer, 3.0), width=self.width)
        return abs(float(np.log(moved.corrected / ratio)))

    def stable_rank(self) -> Estimate:
        """From the largest eigenvalue without what the others add to it in a sample.

        lambda_1 = tau_1 (1 + 1/n sum_j lambda_j / (lambda_1 - lambda_j)): Lawley 1956.
        """
        n, rest = self.effective, self.values[1:]
        naive = float(self.values.sum())  # the largest is 1
        error = float(np.sqrt(2 / n)) * self._more(np.arange(len(self.values)) == 0)
        apart = -np.log(rest[0]) if len(rest) else np.inf
        # By what Gaussian rows leave open: more would pick the samples whose first one is large.
        if apart < STANDS_APART * error / self.spread**0.5:
            return Estimate(
                None,
                None,
                naive,
                "the first eigenvalue stands too close to the second to say what sampling adds "
                "to it",
            )
        largest = 1 / (1 + float(np.sum(rest / (1 - rest))) / n)
        value = max(1.0, naive / largest)
        if self.few:
            return Estimate(value, None, naive, self.few)
        others = max(naive - largest, 0.0)
        square = max(float(np.sum(rest**2)) - others**2 / n, 0.0)
        spread = np.sqrt(2 * square / n) * self._more(np.append(0.0, rest))
        error = float(np.hypot((1 - 1 / value) * error, spread / naive))
        low, high = (value * np.exp(s * 1.96 * error) for s in (-1, 1))
        return Estimate(value, (max(1.0, float(low)), min(float(self.width), float(high))), naive)

    def variance_ranks(self) -> tuple[Estimate, ...]:
        """Ranks by share of the variance, from the population that fits the curve best."""
        naive = 1 + np.searchsorted(explained_variance(self.values), np.array(SHARES) - 1e-12)
        found = self.curve.entropy(of_roots=True)
        if found.high - found.low > OPEN:
            why = f"{self._worth()} for {self.width} features see too little of the weak directions"
            return tuple(Estimate(None, None, float(v), why) for v in naive)
        levels, counts = _population(self.curve)
        held = np.concatenate([[0.0], np.cumsum(levels * counts)])
        ranks = np.interp(np.array(SHARES) * held[-1], held, np.append(0.0, np.cumsum(counts)))
        why = (
            "no interval: how far off the population that fits best may be in a rank is not known "
            "but from simulations (docs/accuracy/spectrum-family.md)"
        )
        return tuple(
            Estimate(float(min(max(r, 1.0), self.width)), None, float(v), why)
            for r, v in zip(ranks, naive, strict=True)
        )

    def _more(self, pull: NDArray[Any]) -> float:
        """By how much the standard error of a measure exceeds that with `effective` samples.

        The variances of directions whose samples are worth less are known less well, and so are all
        where single rows add more than Gaussian ones would.

        pull: [k] derivatives of the measure by the log eigenvalues, up to a factor.
        """
        weight = np.square(pull.astype(np.float64))
        total = float(weight.sum())
        more = weight @ self.squares / total / self.square if total else 1.0
        return float(np.sqrt(more * self.spread))

    def _unlike(self) -> str:
        """Why the weak directions are not known well enough for an interval; "" if they are."""
        times = float(self.squares.max() / self.squares.min())
        if times < UNLIKE:
            return ""
        return (
            f"samples depend on one another {times:.0f} times as much in some directions as in "
            "others, and how much those of the weakest are worth is not known well enough for an "
            "interval"
        )

    def _worth(self) -> str:
        n = self.dof + 1
        worth = f" (worth {self.effective + 1:.0f})" if not self.rows.independent else ""
        return f"{n:g} samples{worth}"


def _population(curve: DegreesOfFreedom) -> tuple[Array, Array]:
    """Eigenvalues, descending, and how many of each: non-negative least squares on the curve.

    The curve on the real axis is a convex problem (El Karoui 2008, Ann. Statist. 36, has it in the
    complex plane); the number of features and their variance count as equations of it.
    """
    from scipy.optimize import nnls

    smallest, largest = curve.ends
    z = curve.kappa * curve.stretch
    nodes = np.flatnonzero((z > smallest / 10) & (z < 30 * largest))[::4]
    kappa, known = curve.kappa[nodes], curve.mended[nodes]
    least = 0.2 * smallest if curve.complete else 0.05 * curve.kappa[0]
    levels = np.exp(np.linspace(np.log(1.05 * largest), np.log(least), LEVELS))
    table = levels / (levels + kappa[:, None]) / known[:, None]
    # Firm equations of the features and their variance, and faint ones of smoothness.
    ends = 10 / curve.width * np.stack([np.ones(LEVELS), levels])
    bends = SMOOTH / curve.width * np.diff(np.eye(LEVELS), 2, axis=0)
    counts, _ = nnls(
        np.concatenate([table, ends, bends]),
        np.concatenate([np.ones(len(kappa)), [10.0, 10.0], np.zeros(LEVELS - 2)]),
        maxiter=100 * LEVELS,
    )
    return levels, counts


def _mapped(one: Estimate, shown: Callable[[Any], Any]) -> Estimate:
    """An estimate under a rising function."""
    interval = one.interval
    if interval is not None:
        interval = float(shown(interval[0])), float(shown(interval[1]))
    value = None if one.value is None else float(shown(one.value))
    return Estimate(value, interval, float(shown(one.naive)), one.why)
