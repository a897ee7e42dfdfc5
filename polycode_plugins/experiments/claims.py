"""A paper's claims as data: what is measured, what would bear the claim out, and the verdict.

A claim holds where the whole 95% interval of its effect meets the criterion, does not hold where no
part of the interval does, and is not judged otherwise: more data or a larger scale has to decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Numbers: TypeAlias = "Mapping[str, pd.DataFrame]"
Outcome: TypeAlias = Literal["holds", "does not hold", "cannot be judged at this scale"]
UNJUDGED: Outcome = "cannot be judged at this scale"


@dataclass(frozen=True)
class Effect:
    """A measured effect with its 95% interval; without one it is exact (a closed form)."""

    value: float
    low: float | None = None
    high: float | None = None


class CannotJudge(Exception):
    """The numbers do not bear on a claim; the message says why, as a clause."""


@dataclass(frozen=True)
class Criterion:
    """The effects that bear a claim out: from `low` to `high`, both included."""

    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"at most {self.high:g}"
        if math.isinf(self.high):
            return f"at least {self.low:g}"
        return f"from {self.low:g} to {self.high:g}"

    def judge(self, effect: Effect) -> Outcome:
        """Whether the interval lies inside, outside, or across an end."""
        low = effect.value if effect.low is None else effect.low
        high = effect.value if effect.high is None else effect.high
        if not (math.isfinite(effect.value) and math.isfinite(low) and math.isfinite(high)):
            return UNJUDGED
        if self.low <= low and high <= self.high:
            return "holds"
        if high < self.low or low > self.high:
            return "does not hold"
        return UNJUDGED


def at_least(low: float) -> Criterion:
    """The effect is `low` or more."""
    return Criterion(low=low)


def at_most(high: float) -> Criterion:
    """The effect is `high` or less."""
    return Criterion(high=high)


@dataclass(frozen=True)
class Claim:
    """One claim about a figure.

    Attributes:
        text: the claim, in our words.
        source: where the paper makes it.
        statistic: what `measure` computes, with its unit.
        criterion: the effects that bear it out.
        measure: from the numbers of an experiment to an effect; raises `CannotJudge` where the
            numbers do not bear on it.
    """

    text: str
    source: str
    statistic: str
    criterion: Criterion
    measure: Callable[[Numbers], Effect]


@dataclass(frozen=True)
class Verdict:
    """What became of a claim; `reason` says why one was not judged, and is empty otherwise."""

    claim: Claim
    effect: Effect | None
    outcome: Outcome
    reason: str = ""

    def row(self) -> dict[str, Any]:
        """One line of the table of verdicts."""
        effect = self.effect or Effect(math.nan)
        return {
            "claim": self.claim.text,
            "source": self.claim.source,
            "statistic": self.claim.statistic,
            "criterion": str(self.claim.criterion),
            "effect": effect.value,
            "low": math.nan if effect.low is None else effect.low,
            "high": math.nan if effect.high is None else effect.high,
            "verdict": self.outcome,
            "reason": self.reason,
        }

    @property
    def measured(self) -> str:
        """The effect with its interval, as text."""
        if self.effect is None:
            return "not measured"
        value = f"{self.effect.value:.3g}"
        if self.effect.low is None or self.effect.high is None:
            return value
        return f"{value} ({self.effect.low:.3g} to {self.effect.high:.3g})"


def judge(claims: Sequence[Claim], numbers: Numbers) -> list[Verdict]:
    """The verdict on every claim."""
    verdicts = []
    for claim in claims:
        try:
            effect = claim.measure(numbers)
        except CannotJudge as why:
            verdicts.append(Verdict(claim, None, UNJUDGED, str(why)))
            continue
        outcome = claim.criterion.judge(effect)
        reason = "the interval reaches across the criterion" if outcome == UNJUDGED else ""
        verdicts.append(Verdict(claim, effect, outcome, reason))
    return verdicts


def mean_effect(values: Any) -> Effect:
    """The mean of independent values with Student's 95% interval."""
    from scipy.stats import t

    x = np.asarray(values, dtype=np.float64)
    if x.size < 2:
        raise CannotJudge("a single run has no interval")
    mean, error = float(x.mean()), float(x.std(ddof=1)) / math.sqrt(x.size)
    half = float(t.ppf(0.975, x.size - 1)) * error
    return Effect(mean, mean - half, mean + half)


def share_effect(hits: int, total: int) -> Effect:
    """A share with Wilson's 95% interval."""
    if total < 1:
        raise CannotJudge("there is nothing to count")
    from scipy.stats import binomtest

    interval = binomtest(hits, total).proportion_ci(method="wilson")
    return Effect(hits / total, float(interval.low), float(interval.high))


def bootstrap_effect(
    statistic: Callable[[np.ndarray[Any, Any]], float], units: int, *, draws: int = 1000
) -> Effect:
    """`statistic` of all `units`, with a percentile interval over units drawn with replacement.

    Args:
        statistic: of an array of unit numbers, which may hold one several times.
        units: independent units (trained networks, texts).
        draws: how many samples of units; their seed is fixed, so that a verdict can be repeated.
    """
    if units < 2:
        raise CannotJudge("a single run has no interval")
    from scipy.stats import bootstrap

    numbers = np.arange(units)
    interval = bootstrap(
        (numbers,),
        statistic,
        vectorized=False,
        n_resamples=draws,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Effect(float(statistic(numbers)), float(interval.low), float(interval.high))
