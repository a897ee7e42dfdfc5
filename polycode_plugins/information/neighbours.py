"""Mutual information from nearest neighbours, and from counts where both sides are labels.

Distances are Chebyshev (largest coordinate difference) throughout, information in nats.
"""

from __future__ import annotations

import numpy as np

from polycode_plugins.errors import DataError
from polycode_plugins.information.samples import Estimate, Floats, Labels

#: Neighbours that an estimate averages over: more lowers the variance and raises the bias.
NEIGHBOURS = 10

#: "Strictly nearer", with room for the rounding of a coordinate plus a distance.
_NEARER = 1 - 1e-9


def ksg(
    x: Floats, y: Floats, *, neighbours: int = NEIGHBOURS, queries: int | None = None, seed: int = 0
) -> Estimate:
    """Kraskov, Stoegbauer & Grassberger 2004, equation 8, for continuous samples.

    `x` [samples, width x], `y` [samples, width y]. With `queries` the average runs over that many
    of the samples, drawn at random, whose neighbours are still sought among all: unbiased, and the
    way to bound the time in many dimensions, where search trees do not help. Repeated values break
    it: use `mixed_ksg` there.

    Biased downwards when both sides have several coordinates that tell much of each other.
    """
    from scipy.special import digamma

    n = len(x)
    rows, distance = _neighbour_distance(x, y, neighbours, queries, seed)
    # These counts include the sample itself, so they are the formula's n_x + 1 and n_y + 1.
    in_x, in_y = _within(x, rows, distance * _NEARER), _within(y, rows, distance * _NEARER)
    return _average(digamma(neighbours) + digamma(n) - digamma(in_x) - digamma(in_y))


def mixed_ksg(
    x: Floats, y: Floats, *, neighbours: int = NEIGHBOURS, queries: int | None = None, seed: int = 0
) -> Estimate:
    """Gao, Kannan, Oh & Viswanath 2017: neighbours where values may repeat (atoms, mixtures).

    Where the k-th neighbour lies at distance 0 the sample sits on an atom, and counts take the
    place of distances. Arguments as for `ksg`.
    """
    from scipy.special import digamma

    n = len(x)
    rows, distance = _neighbour_distance(x, y, neighbours, queries, seed)
    atom = distance == 0
    in_x, in_y = _within(x, rows, distance * _NEARER), _within(y, rows, distance * _NEARER)
    k = np.full(len(rows), float(neighbours))
    if atom.any():
        both = np.hstack([x, y])
        k[atom] = _within(both, rows[atom], np.zeros(int(atom.sum())))
    # Counts include the sample itself; off the atoms this is `ksg`.
    local = digamma(k) + np.log(n) - np.where(atom, np.log(in_x), digamma(in_x))
    return _average(local - np.where(atom, np.log(in_y), digamma(in_y)))


def ross(x: Floats, y: Labels, *, neighbours: int = NEIGHBOURS) -> Estimate:
    """Ross 2014: information between continuous `x` [samples, width] and labels `y` [samples].

    Labels that occur once have no neighbour of their own and are left out; one with fewer than
    `neighbours` others uses those it has.
    """
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    counts = np.bincount(y)
    rows = np.flatnonzero(counts[y] > 1)
    if len(rows) == 0:
        raise DataError(
            "Every label occurs once, so no sample has a neighbour of its own label; pass more "
            "samples per label."
        )
    distance, k = np.empty(len(x)), np.empty(len(x))
    for label in np.flatnonzero(counts > 1):
        own = np.flatnonzero(y == label)
        near = min(neighbours, len(own) - 1)
        distance[own] = cKDTree(x[own]).query(x[own], near + 1, p=np.inf)[0][:, -1]
        k[own] = near
    kept = x[rows]
    within = _within(kept, np.arange(len(rows)), distance[rows] * _NEARER)
    local = digamma(len(rows)) - digamma(counts[y[rows]]) + digamma(k[rows]) - digamma(within)
    return _average(local)


def plug_in(x: Labels, y: Labels) -> Estimate:
    """Information between two labellings [samples], from counts, bias-corrected.

    Subtracts Miller & Madow's (1955) leading bias, (K_xy - K_x - K_y + 1) / 2N with K the number
    of symbols that occur: too much or too little when the cells are few samples deep.
    """
    table = np.zeros((int(x.max()) + 1, int(y.max()) + 1))
    np.add.at(table, (x, y), 1)
    joint = table / len(x)
    px, py = joint.sum(1), joint.sum(0)
    local = np.log(joint[x, y]) - np.log(px[x]) - np.log(py[y])
    cells = [int((p > 0).sum()) for p in (joint, px, py)]
    found = _average(local)
    return Estimate(found.nats - (cells[0] - cells[1] - cells[2] + 1) / (2 * len(x)), found.error)


def entropy(labels: Labels) -> float:
    """Entropy [nats] of `labels` with the Miller-Madow correction: what no information exceeds."""
    share = np.bincount(labels) / len(labels)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum() + (len(share) - 1) / (2 * len(labels)))


def growth(x: Floats, y: Floats, *, seed: int, queries: int | None = None) -> float:
    """How much of its logarithm a fourfold number of samples adds to the neighbour estimate.

    About 0 where noise separates the two; 1 where y is a smooth function of x without noise, since
    the information is then infinite and the estimate follows ln N for ever.
    """
    part = np.random.default_rng(seed).choice(len(x), len(x) // 4, replace=False)
    few = ksg(x[part], y[part], neighbours=3, queries=queries, seed=seed).nats
    many = ksg(x, y, neighbours=3, queries=queries, seed=seed).nats
    return float((many - few) / np.log(len(x) / len(part)))


def _neighbour_distance(
    x: Floats, y: Floats, neighbours: int, queries: int | None, seed: int
) -> tuple[Labels, Floats]:
    """Rows asked about, and the distance of each to its k-th neighbour in the joint space."""
    from scipy.spatial import cKDTree

    n = len(x)
    if neighbours >= n:
        raise DataError(
            f"{neighbours} neighbours cannot be found among {n} samples; ask for fewer."
        )
    rows = np.arange(n)
    if queries is not None and queries < n:
        rows = np.random.default_rng(seed).choice(n, queries, replace=False)
    both = np.hstack([x, y])
    distance = cKDTree(both).query(both[rows], neighbours + 1, p=np.inf)[0][:, -1]
    return rows, np.asarray(distance)


def _within(values: Floats, rows: Labels, radius: Floats) -> Labels:
    """How many samples lie within `radius` of each of `rows`, the sample itself included."""
    from scipy.spatial import cKDTree

    if values.shape[1] == 1:  # sorting beats a tree by far
        line = np.sort(values[:, 0])
        centre = values[rows, 0]
        high = np.searchsorted(line, centre + radius, side="right")
        return np.asarray(high - np.searchsorted(line, centre - radius, side="left"))
    tree = cKDTree(values)
    counts = tree.query_ball_point(values[rows], radius, p=np.inf, return_length=True)
    return np.asarray(counts)


def _average(local: Floats) -> Estimate:
    return Estimate(float(local.mean()), float(local.std() / np.sqrt(len(local))))
