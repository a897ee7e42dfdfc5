"""Means over units and sites, resampled: intervals and tests that hold for few and uneven units.

What is resampled is a unit with all that it has: a neuron or a direction that is read at several
sites is one unit there too, and so are its two signs. Read off one residual stream these go up and
down together, and counted as so many units they would make every interval too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float] | None
BOOTSTRAPS = 2000
PERMUTATIONS = 5000
AT_ONCE = 4_000_000  # numbers of one array: 32 MB
NOTHING = 1e-12  # of the largest score: what rounding alone leaves of a deviation


@dataclass(frozen=True)
class Clusters:
    """Some units and their scores at each site.

    Attributes:
        totals: sum of a unit's scores at each site [units, sites].
        counts: how many these are [units, sites].
        strata: int64 [units]; units of two strata have no site in common.
    """

    totals: Floats
    counts: Floats
    strata: NDArray[np.int64]

    def draws(self, n: int, rng: np.random.Generator) -> Floats:
        """How often each unit is drawn [n, units], as many units of each stratum as there are."""
        return bootstrap_weights(self.strata, n, rng)


def bootstrap_weights(strata: NDArray[np.int64], n: int, rng: np.random.Generator) -> Floats:
    """How often each unit is drawn with replacement from its stratum [n, units]."""
    weights = np.zeros((n, len(strata)))
    for stratum in np.unique(strata):
        (members,) = np.nonzero(strata == stratum)
        size = len(members)
        step = max(1, AT_ONCE // size)
        for rows in (slice(i, min(i + step, n)) for i in range(0, n, step)):
            drawn = rng.integers(size, size=(rows.stop - rows.start, size))
            drawn += size * np.arange(len(drawn))[:, None]
            counts = np.bincount(drawn.reshape(-1), minlength=drawn.size)
            weights[rows, members] = counts.reshape(drawn.shape)
    return weights


def strata_of(present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each unit [units, sites] the sites that it and its like tie together, as one number."""
    label = np.arange(present.shape[1])
    for row in np.unique(present, axis=0):
        tied = np.isin(label, label[row])
        label[tied] = label[tied].min() if tied.any() else 0
    return np.asarray(label[present.argmax(axis=1)])


def clusters_of(
    first: Sequence[tuple[Sequence[str], Floats]], second: Sequence[tuple[Sequence[str], Floats]]
) -> tuple[Clusters, Clusters]:
    """The units of two kinds, given as their names and scores at each site."""
    made = []
    for kind in (first, second):
        number = {name: i for i, name in enumerate(dict.fromkeys(n for ns, _ in kind for n in ns))}
        totals, counts = np.zeros((2, len(number), len(kind)))
        for site, (names, scores) in enumerate(kind):
            rows = [number[name] for name in names]
            np.add.at(totals[:, site], rows, scores)
            np.add.at(counts[:, site], rows, 1.0)
        made.append((totals, counts))
    strata = strata_of(np.concatenate([counts > 0 for _, counts in made]))
    cut = len(made[0][0])
    return Clusters(*made[0], strata[:cut]), Clusters(*made[1], strata[cut:])


def _moments(clusters: Clusters, weights: Floats) -> tuple[Floats, Floats]:
    """The mean over sites of the mean score, and its estimated variance, for each row of weights.

    NaN where a site is left with fewer than two units.
    """
    step = max(1, AT_ONCE // max(1, weights.shape[1]))
    parts = [
        _moments_of(clusters, weights[i : i + step]) for i in range(0, max(1, len(weights)), step)
    ]
    means, variances = zip(*parts, strict=True)
    return np.concatenate(means), np.concatenate(variances)


def _moments_of(clusters: Clusters, weights: Floats) -> tuple[Floats, Floats]:
    means, scale = _scaled(clusters, weights)
    sites = means.shape[1]
    deviations = np.zeros_like(weights)
    for s in range(sites):
        deviations += _deviations(clusters, means, scale, s) / sites
    return means.mean(axis=1), (weights * deviations**2).sum(axis=1)


def site_moments(clusters: Clusters, weights: Floats) -> tuple[Floats, Floats]:
    """The mean score at each site, and its estimated variance [draws, sites].

    NaN where a site is left with fewer than two units.
    """
    means, scale = _scaled(clusters, weights)
    variances = np.empty_like(means)
    for s in range(means.shape[1]):
        variances[:, s] = (weights * _deviations(clusters, means, scale, s) ** 2).sum(axis=1)
    return means, variances


def _scaled(clusters: Clusters, weights: Floats) -> tuple[Floats, Floats]:
    """Mean score of each site, and what makes its deviations those of the mean: s^2 / n."""
    units = weights @ (clusters.counts > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        n = weights @ clusters.counts
        means = (weights @ clusters.totals) / n
        return means, np.where(units > 1, np.sqrt(units / (units - 1)), np.nan) / n


def _deviations(clusters: Clusters, means: Floats, scale: Floats, site: int) -> Floats:
    """By how much each unit moves the mean of a site [draws, units]."""
    off = clusters.totals[:, site] - means[:, site, None] * clusters.counts[:, site]
    return np.asarray(scale[:, site, None] * off)


def _spreads(off: Floats, variance: Floats, size: float) -> Floats:
    """Deviations in standard errors, in absolute value; NaN where there is no standard error."""
    error, off = np.sqrt(variance), np.abs(off)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error > NOTHING * size, off / error, np.inf)
    ratio = np.where((error <= NOTHING * size) & (off <= NOTHING * size), 0.0, ratio)
    return np.where(np.isnan(error) | np.isnan(off), np.nan, ratio)


def interval_around(
    centre: float, variance: float, centres: Floats, variances: Floats, size: float
) -> Interval:
    """95% symmetric bootstrap-t interval (Hall 1988) out of the draws; None where they do not tell.

    Args:
        centre, variance: the estimate and its estimated variance.
        centres, variances: the same of each draw.
        size: of the largest score, which says what is rounding.
    """
    spreads = _spreads(centres - centre, variances, size)
    known = spreads[~np.isnan(spreads)]
    if np.isnan(variance) or 2 * len(known) < len(spreads):
        return None
    width = float(np.quantile(known, 0.95, method="higher")) * float(np.sqrt(variance))
    return (centre - width, centre + width) if np.isfinite(width) else None


def interval(first: Clusters, second: Clusters | None, rng: np.random.Generator) -> Interval:
    """The interval of the difference of two means, or of one mean; None for too few units."""
    kinds = [first] if second is None else [first, second]
    centre = variance = 0.0
    centres, variances = np.zeros((2, BOOTSTRAPS))
    for sign, kind in zip((1, -1), kinds, strict=False):
        mean, squared = _moments(kind, np.ones((1, len(kind.totals))))
        centre, variance = centre + sign * float(mean[0]), variance + float(squared[0])
        drawn, drawn_squared = _moments(kind, kind.draws(BOOTSTRAPS, rng))
        centres, variances = centres + sign * drawn, variances + drawn_squared
    size = max(float(np.abs(k.totals).max()) for k in kinds)
    return interval_around(centre, variance, centres, variances, size)


def within(bounds: tuple[float, float], found: tuple[float, float] | None) -> Interval:
    """The part of an interval that lies within bounds; None where that is all of them."""
    if found is None:
        return None
    low, high = max(found[0], bounds[0]), min(found[1], bounds[1])
    return None if (low, high) == bounds else (low, high)


def p_value(first: Clusters, second: Clusters | None, rng: np.random.Generator) -> float | None:
    """Two-sided: the share of orders of the kinds in which they differ by as many standard errors.

    In standard errors, since a mere difference would take unequal spread in unequal numbers of
    units for one (Janssen 1997). None where a site has fewer than two units of a kind.

    Args:
        first, second: the units of two kinds; or of pairs their differences, and None: then the
            order is that within each pair.
        rng: draws the orders.
    """
    if second is None:
        return _p_of_pairs(first, rng)
    joined = Clusters(
        *(
            np.concatenate([getattr(k, name) for k in (first, second)])
            for name in ("totals", "counts", "strata")
        )
    )
    kind = np.repeat([1.0, 0.0], [len(first.totals), len(second.totals)])
    orders = np.tile(kind, (PERMUTATIONS + 1, 1))
    for stratum in np.unique(joined.strata):
        (members,) = np.nonzero(joined.strata == stratum)
        orders[1:, members] = rng.permuted(orders[1:, members], axis=1)
    (a, va), (b, vb) = _moments(joined, orders), _moments(joined, 1 - orders)
    return _share_as_far(_spreads(a - b, va + vb, float(np.abs(joined.totals).max())))


def _p_of_pairs(pairs: Clusters, rng: np.random.Generator) -> float | None:
    """Of the signs of the differences, each turned with all that a pair has at other sites."""
    units, sites = pairs.totals.shape
    signs = np.ones((PERMUTATIONS + 1, units))
    signs[1:] = rng.choice((-1.0, 1.0), size=(PERMUTATIONS, units))
    parts = []
    step = max(1, AT_ONCE // units)
    for turned in (signs[i : i + step] for i in range(0, len(signs), step)):
        held = pairs.counts > 0
        n, present = pairs.counts.sum(axis=0), held.sum(axis=0)
        means = turned @ pairs.totals / n
        deviations = np.zeros_like(turned)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.where(present > 1, np.sqrt(present / (present - 1)), np.nan) / n / sites
        for s in range(sites):
            off = turned * pairs.totals[:, s] - means[:, s, None] * pairs.counts[:, s]
            deviations += scale[s] * off
        parts.append((means.mean(axis=1), (deviations**2).sum(axis=1)))
    means, variances = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _share_as_far(_spreads(means, variances, float(np.abs(pairs.totals).max())))


def _share_as_far(spreads: Floats) -> float | None:
    """The share of orders, the first among them, that differ by as much as the first."""
    if np.isnan(spreads[0]):
        return None
    # An order that leaves a site without units counts against a difference.
    as_far = ~(spreads[1:] < spreads[0] * (1 - 1e-9))
    return float((as_far.sum() + 1) / (PERMUTATIONS + 1))
