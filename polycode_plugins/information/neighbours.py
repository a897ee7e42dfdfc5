"""Mutual information from nearest neighbours, and from counts where both sides are discrete.

Distances are Chebyshev (largest coordinate difference) throughout, information in nats.

Values that repeat (zeros after a ReLU, rounding, quantisation) put many samples at one and the same
distance. Two things keep independent values at 0 there. Every count is one of samples *strictly*
nearer than the k-th neighbour, in the joint space as in the margins: with k as asked for and the
margins counted strictly, they come out up to .5 nats above 0, whatever the number of samples. And
grids are made `uneven` first, since on even steps a ball is empty but for its centre until it holds
far more than k, and a count of one says up to several nats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from polycode_plugins.errors import DataError
from polycode_plugins.information.samples import Estimate, Floats, Labels
from polycode_plugins.information.transforms import uneven

#: Neighbours that an estimate averages over: more lowers the variance and raises the bias.
NEIGHBOURS = 10
#: Shuffled pairings that tell what an estimate says where nothing is shared.
SHUFFLES = 4

#: "Strictly nearer", with room for the rounding of a coordinate plus a distance.
_NEARER = 1 - 1e-9
#: Samples of two coordinates from which on a tree is quicker; fourfold for each more, as measured.
SEARCHED = 15_000
#: Comparisons of ranks that are made at a time.
AT_ONCE = 2**17
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


def ksg(
    x: Floats, y: Floats, *, neighbours: int = NEIGHBOURS, queries: int | None = None, seed: int = 0
) -> Estimate:
    """Kraskov, Stoegbauer & Grassberger 2004, equation 8, where values may repeat too.

    `x` [samples, width x], `y` [samples, width y]. With `queries` the average runs over that many
    of the samples, drawn at random, whose neighbours are still sought among all: unbiased, and the
    way to bound the time in many dimensions, where search trees do not help.

    A sample whose k-th neighbour lies at distance 0 sits on an atom: counts of its equals take the
    place of distances there (Gao et al. 2017). Where the k-th distance is shared by several, k is
    counted anew, see the head of this module.

    Biased downwards when both sides have several coordinates that tell much of each other.
    """

    return ksg_terms(x, y, neighbours=neighbours, queries=queries, seed=seed).average()


class Terms(NamedTuple):
    """What each sample asked about has in an average: `values`, from `nearer` samples of its own.

    Both [queries]; `nearer` counts the joint neighbours strictly within the ball, itself included.
    """

    values: Floats
    nearer: Labels

    def average(self) -> Estimate:
        """The estimate, and its standard error.

        Samples close to each other count the same neighbours, so the chance in those counts, of
        variance trigamma(nearer) each, does not average out as that of independent terms would.
        It is counted twice, which is right for independent coordinates, one on each side, where the
        spread of the terms alone is 1.4 times too small, and up to a fifth too much beyond.
        """
        from scipy.special import polygamma

        shared = float(np.asarray(polygamma(1, self.nearer)).mean())
        variance = float(self.values.var()) + shared
        return Estimate(float(self.values.mean()), float(np.sqrt(variance / len(self.values))))


def ksg_terms(
    x: Floats, y: Floats, *, neighbours: int = NEIGHBOURS, queries: int | None = None, seed: int = 0
) -> Terms:
    """The terms of `ksg`."""
    from scipy.special import digamma

    n, rng = len(x), np.random.default_rng(seed)
    if neighbours >= n:
        raise DataError(
            f"{neighbours} neighbours cannot be found among {n} samples; ask for fewer."
        )
    x, y = uneven(x, rng), uneven(y, rng)
    rows = np.arange(n)
    if queries is not None and queries < n:
        rows = np.random.default_rng(seed).choice(n, queries, replace=False)
    distance, nearer = _nearest(np.hstack([x, y]), rows, neighbours)
    # These counts include the sample itself, so they are the formula's k, n_x + 1 and n_y + 1.
    in_x, in_y = _within(x, rows, distance * _NEARER), _within(y, rows, distance * _NEARER)
    return Terms(digamma(nearer) + digamma(n) - digamma(in_x) - digamma(in_y), nearer)


def ross(x: Floats, y: Labels, *, neighbours: int = NEIGHBOURS, seed: int = 0) -> Estimate:
    """Ross 2014: information between continuous `x` [samples, width] and labels `y` [samples].

    Labels that occur once have no neighbour of their own and are left out; one with fewer than
    `neighbours` others uses those it has.
    """

    return ross_terms(x, y, neighbours=neighbours, seed=seed).average()


def ross_terms(x: Floats, y: Labels, *, neighbours: int = NEIGHBOURS, seed: int = 0) -> Terms:
    """The terms of `ross`, of the samples whose label occurs again."""
    from scipy.special import digamma

    x = uneven(x, np.random.default_rng(seed))
    counts = np.bincount(y)
    rows = np.flatnonzero(counts[y] > 1)
    if len(rows) == 0:
        raise DataError(
            "Every label occurs once, so no sample has a neighbour of its own label; pass more "
            "samples per label."
        )
    distance, nearer = np.empty(len(x)), np.empty(len(x), dtype=np.int64)
    for label in np.flatnonzero(counts > 1):
        own = np.flatnonzero(y == label)
        found = _nearest(x[own], np.arange(len(own)), min(neighbours, len(own) - 1))
        distance[own], nearer[own] = found
    kept = x[rows]
    within = _within(kept, np.arange(len(rows)), distance[rows] * _NEARER)
    local = digamma(len(rows)) - digamma(counts[y[rows]]) + digamma(nearer[rows])
    return Terms(local - digamma(within), nearer[rows])


def above_chance(
    found: Estimate, terms: Callable[[Labels], Terms], n_samples: int, seed: int
) -> Estimate:
    """`found` less what the same estimator says of shuffled pairs, where nothing is shared.

    `terms` are those of the estimator with y in the order of the indices [samples] that it is
    given. The error takes in that of the `SHUFFLES` shuffles.
    """
    rng = np.random.default_rng(seed)
    said = np.array([terms(rng.permutation(n_samples)).values.mean() for _ in range(SHUFFLES)])
    spread = float(said.std(ddof=1))
    error = float(np.hypot(max(found.error, spread), spread / np.sqrt(SHUFFLES)))
    chance = float(said.mean())
    return replace(found, nats=found.nats - chance, error=error, chance=chance)


def growth(x: Floats, y: Floats, *, seed: int, queries: int | None = None) -> float:
    """How much of its logarithm a fourfold number of samples adds to the neighbour estimate.

    About 0 where noise separates the two; 1 where y is a smooth function of x without noise, since
    the information is then infinite and the estimate follows ln N for ever.
    """
    part = np.random.default_rng(seed).choice(len(x), len(x) // 4, replace=False)
    few = ksg_terms(x[part], y[part], neighbours=3, queries=queries, seed=seed).values.mean()
    many = ksg_terms(x, y, neighbours=3, queries=queries, seed=seed).values.mean()
    return float((many - few) / np.log(len(x) / len(part)))


def _nearest(values: Floats, rows: Labels, neighbours: int) -> tuple[Floats, Labels]:
    """Distance of each of `rows` to its k-th neighbour, and how many samples are nearer than that.

    The sample itself counts, so the number is k where no two distances are equal. At distance 0 it
    is that of the sample and its equals.
    """
    from scipy.spatial import cKDTree

    found = cKDTree(values).query(values[rows], neighbours + 1, p=np.inf)[0]
    distance = found[:, -1]
    nearer = (found < distance[:, None] * _NEARER).sum(1)
    atom = distance == 0
    if atom.any():
        nearer[atom] = _within(values, rows[atom], distance[atom])
    return distance, nearer


def _within(values: Floats, rows: Labels, radius: Floats) -> Labels:
    """How many samples lie within `radius` of each of `rows`, the sample itself included.

    Along one coordinate these are an interval of ranks. In several a sample is within if its rank
    is in all intervals, which is quicker asked of every sample than a tree is searched, save where
    coordinates are few and samples very many.
    """
    n, width = values.shape
    if width > 1 and n > SEARCHED * 4 ** (width - 2):
        from scipy.spatial import cKDTree

        tree = cKDTree(values)
        return np.asarray(tree.query_ball_point(values[rows], radius, p=np.inf, return_length=True))
    intervals = [_interval(column, rows, radius) for column in values.T]
    if width == 1:
        return intervals[0][2]
    # Unsigned: a rank below an interval wraps to far above it.
    kind: np.dtype[Any] = np.dtype(np.uint16 if n < 2**16 else np.uint32)
    ranked = [
        (rank.astype(kind), low.astype(kind)[:, None], size.astype(kind)[:, None])
        for rank, low, size in intervals
    ]
    counts = np.empty(len(rows), dtype=np.int64)
    step = max(1, AT_ONCE // n)
    for part in (slice(start, start + step) for start in range(0, len(rows), step)):
        within = np.ones((len(counts[part]), n), dtype=bool)
        for rank, low, size in ranked:
            within &= rank - low[part] < size[part]
        counts[part] = _BITS[np.packbits(within, axis=1)].sum(axis=1)
    return counts


def _interval(column: Floats, rows: Labels, radius: Floats) -> tuple[Labels, Labels, Labels]:
    """The rank of each sample, and of each of `rows` the lowest within `radius` and how many."""
    order = np.argsort(column)
    line, rank = column[order], np.empty(len(column), dtype=np.int64)
    rank[order] = np.arange(len(column))
    low = np.searchsorted(line, column[rows] - radius, side="left")
    return rank, low, np.searchsorted(line, column[rows] + radius, side="right") - low
