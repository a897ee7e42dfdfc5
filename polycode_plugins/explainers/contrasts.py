"""The difference between two kinds of units, layer by layer: intervals, tests, effect sizes.

Within a layer both kinds went through one pipeline with the same texts and budget; over layers the
difference is paired by layer. Units whose score is undefined are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BOOTSTRAPS = 2000
PERMUTATIONS = 5000
ADJUSTED_BOOTSTRAPS = 500


@dataclass(frozen=True)
class Contrast:
    """How much higher `first` units score than `second` ones, at a site or over all.

    Attributes:
        site: "" for the mean over sites.
        first, second: kinds of units.
        score: the name of the score.
        n: units of each kind with a score.
        undefined: units of each kind without one.
        means: of each kind; None without units.
        difference: mean of first less mean of second; over sites, the mean of theirs.
        interval: 95% percentile bootstrap over units (within sites), 2000 draws.
        p_value: two-sided permutation test of the kinds (within sites), 5000 draws.
        effect: Cohen's d, the difference in pooled standard deviations (within sites).
        dominance: Cliff's delta, P(first > second) - P(first < second), in [-1, 1].
        adjusted: difference at equal log kurtosis and sparsity (least squares, sites as levels).
        adjusted_interval: its 95% percentile bootstrap over units.
    """

    site: str
    first: str
    second: str
    score: str
    n: tuple[int, int]
    undefined: tuple[int, int]
    means: tuple[float | None, float | None]
    difference: float | None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    effect: float | None = None
    dominance: float | None = None
    adjusted: float | None = None
    adjusted_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Sample:
    """The units of one kind at one site: scores (NaN where undefined) and covariates [units, k]."""

    scores: Floats
    covariates: Floats

    def known(self) -> Sample:
        """Those with a score."""
        keep = np.isfinite(self.scores)
        return Sample(self.scores[keep], self.covariates[keep])


Pairs = Mapping[str, tuple[Sample, Sample]]


def contrasts(
    pairs: Pairs, first: str, second: str, score: str, *, seed: int = 0
) -> list[Contrast]:
    """One contrast for each site, in the order of `pairs`, and last the one over all sites."""
    made = [
        _contrast({site: pair}, site, first, second, score, np.random.default_rng([seed, i]))
        for i, (site, pair) in enumerate(pairs.items())
    ]
    return [*made, _contrast(pairs, "", first, second, score, np.random.default_rng([seed, 10**6]))]


def _contrast(
    pairs: Pairs, site: str, first: str, second: str, score: str, rng: np.random.Generator
) -> Contrast:
    known = [(a.known(), b.known()) for a, b in pairs.values()]
    n = (sum(len(a.scores) for a, _ in known), sum(len(b.scores) for _, b in known))
    total = (
        sum(len(a.scores) for a, _ in pairs.values()),
        sum(len(b.scores) for _, b in pairs.values()),
    )
    undefined = (total[0] - n[0], total[1] - n[1])
    both = [(a, b) for a, b in known if len(a.scores) and len(b.scores)]
    means = tuple(
        float(np.mean([pair[i].scores.mean() for pair in both])) if both else _mean(known, i)
        for i in (0, 1)
    )
    if not both:
        return Contrast(site, first, second, score, n, undefined, (means[0], means[1]), None)
    values = [(a.scores, b.scores) for a, b in both]
    difference = float(np.mean([a.mean() - b.mean() for a, b in values]))
    enough = all(min(len(a), len(b)) > 1 for a, b in values)
    adjusted, adjusted_interval = _adjusted(both, rng) if enough else (None, None)
    return Contrast(
        site,
        first,
        second,
        score,
        n,
        undefined,
        (means[0], means[1]),
        difference,
        _interval(values, rng) if enough else None,
        _p_value(values, difference, rng) if enough else None,
        _effect(values, difference) if enough else None,
        float(np.mean([np.sign(a[:, None] - b).mean() for a, b in values])),
        adjusted,
        adjusted_interval,
    )


def _mean(known: Sequence[tuple[Sample, Sample]], which: int) -> float | None:
    held = [pair[which].scores for pair in known if len(pair[which].scores)]
    return float(np.mean([s.mean() for s in held])) if held else None


def _interval(
    values: Sequence[tuple[Floats, Floats]], rng: np.random.Generator
) -> tuple[float, float]:
    draws = np.zeros(BOOTSTRAPS)
    for a, b in values:
        draws += a[rng.integers(len(a), size=(BOOTSTRAPS, len(a)))].mean(axis=1)
        draws -= b[rng.integers(len(b), size=(BOOTSTRAPS, len(b)))].mean(axis=1)
    low, high = np.quantile(draws / len(values), [0.025, 0.975])
    return float(low), float(high)


def _p_value(
    values: Sequence[tuple[Floats, Floats]], difference: float, rng: np.random.Generator
) -> float:
    draws = np.zeros(PERMUTATIONS)
    for a, b in values:
        joined = np.concatenate([a, b])
        shuffled = rng.permuted(np.broadcast_to(joined, (PERMUTATIONS, len(joined))), axis=1)
        draws += shuffled[:, : len(a)].mean(axis=1) - shuffled[:, len(a) :].mean(axis=1)
    as_far = np.abs(draws / len(values)) >= abs(difference) * (1 - 1e-12)
    return float((as_far.sum() + 1) / (PERMUTATIONS + 1))


def _effect(values: Sequence[tuple[Floats, Floats]], difference: float) -> float | None:
    squares = sum(((x - x.mean()) ** 2).sum() for pair in values for x in pair)
    freedom = sum(len(x) - 1 for pair in values for x in pair)
    return difference / float(np.sqrt(squares / freedom)) if squares > 0 else None


def _adjusted(
    pairs: Sequence[tuple[Sample, Sample]], rng: np.random.Generator
) -> tuple[float | None, tuple[float, float] | None]:
    """The coefficient of the kind beside the covariates and one level for each site.

    None where kind and covariates cannot be told apart. A bootstrap draw is a weight for each
    unit, so that all draws are solved at once.
    """
    rows, targets, weights = [], [], []
    for i, pair in enumerate(pairs):
        for kind, sample in zip((1.0, 0.0), pair, strict=True):
            usable = np.isfinite(sample.covariates).all(axis=1)
            n = int(usable.sum())
            level = np.zeros((n, len(pairs)))
            level[:, i] = 1
            rows.append(np.column_stack([np.full(n, kind), sample.covariates[usable], level]))
            targets.append(sample.scores[usable])
            if n:
                weights.append(rng.multinomial(n, np.full(n, 1 / n), size=ADJUSTED_BOOTSTRAPS))
    design, target = np.concatenate(rows), np.concatenate(targets)
    n, k = design.shape
    if n <= k or np.linalg.matrix_rank(design) < k:
        return None, None
    found = float(np.linalg.lstsq(design, target, rcond=None)[0][0])
    drawn = np.concatenate(weights, axis=1).astype(np.float64)
    products = (design[:, :, None] * design[:, None, :]).reshape(n, k * k)
    gram = (drawn @ products).reshape(-1, k, k)
    solvable = np.linalg.cond(gram) < 1e12
    if 2 * solvable.sum() < ADJUSTED_BOOTSTRAPS:
        return found, None
    right = drawn[solvable] @ (design * target[:, None])
    draws = np.linalg.solve(gram[solvable], right[:, :, None])[:, 0, 0]
    low, high = np.quantile(draws, [0.025, 0.975])
    return found, (float(low), float(high))
