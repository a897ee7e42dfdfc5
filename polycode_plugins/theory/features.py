"""Feature capacity and its optimal allocation (Scherlis et al. 2022).

The toy model: inputs x_i independent, mean 0, variance 1, kurtosis k = E[x^4]; target
sum_i v_i x_i^2 with importances v_i >= 0; output sum_d (W^T x)_d^2 plus a fitted constant. An
embedding W is [features, dimensions] here, its row w_i the embedding vector of feature i.
"""

from __future__ import annotations

import numpy as np

from polycode_plugins.errors import DataError
from polycode_plugins.theory._arguments import Array, Floats, array, count, number, within


def feature_capacity(embedding: Array) -> Floats:
    """Capacity C_i in [0, 1] of every feature: (w_i.w_i)^2 / sum_j (w_i.w_j)^2.

    `embedding` [features, dimensions]; returns [features]. 1: the feature has a dimension of its
    own; the sum is at most the rank of the embedding. A feature of zero norm has capacity 0. The
    same number is the squared correlation of x_i with [W W^T x]_i for independent x of equal
    variance, and Elhage et al.'s D_i = |w_i|^2 / sum_j (w_i.w_j / |w_i|)^2.
    Source: Scherlis et al. 2022 (definition of capacity); Elhage et al. 2022 (dimensionality).
    """
    w = array(embedding, "embedding", 2)
    w = w / (abs(w).max() or 1.0)  # so that squares neither overflow nor vanish
    squared_norm = (w**2).sum(1)
    used = squared_norm > 0
    unit = w[used] / np.sqrt(squared_norm[used])[:, None]
    features, dimensions = w.shape
    if features <= dimensions:
        interference = ((unit @ w.T) ** 2).sum(1)
    else:
        interference = ((unit @ (w.T @ w)) * unit).sum(1)
    capacity = np.zeros(features)
    capacity[used] = np.minimum(squared_norm[used] / interference, 1.0)
    return capacity


def quadratic_loss(embedding: Array, importance: Array, kurtosis: float) -> float:
    """Loss of the toy model at an embedding [features, dimensions]: the variance of its error.

    (k - 1) sum_i (|w_i|^2 - v_i)^2 + 2 sum_{i != j} (w_i.w_j)^2, with k = `kurtosis` > 1 and v =
    `importance` [features] >= 0. Its gradient is 4 (A * (W W^T - diag v)) W, where A is k - 1 on
    the diagonal and 2 off it.
    Source: Scherlis et al. 2022 (quadratic toy model).
    """
    w = array(embedding, "embedding", 2)
    v, k = _model(importance, kurtosis)
    if len(v) != len(w):
        raise DataError(
            f"importance has {len(v)} features and embedding {len(w)}; make them agree."
        )
    error = w @ w.T - np.diag(v)
    diagonal = np.diag(error)
    return float(2 * (error**2).sum() + (k - 3) * (diagonal**2).sum())


def allocation_loss(capacity: Array, importance: Array, kurtosis: float) -> Floats:
    """Each feature's share [features] of the toy model's loss at given capacities, norms optimal.

    L_i = 2 v_i^2 (k-1) (1-C_i) / (2 + (k-3) C_i), reached at |w_i|^2 = (k-1) v_i C_i /
    (2 + (k-3) C_i). The sum bounds `quadratic_loss` of every embedding with these capacities from
    below, and `optimal_embedding` attains it at the optimal allocation.
    Source: Scherlis et al. 2022 (quadratic toy model).
    """
    v, k = _model(importance, kurtosis)
    c = within(capacity, "capacity", 0, 1, dimensions=1)
    if len(c) != len(v):
        raise DataError(f"capacity has {len(c)} features and importance {len(v)}; make them agree.")
    return 2 * v**2 * (k - 1) * (1 - c) / (2 + (k - 3) * c)


def optimal_allocation(importance: Array, kurtosis: float, dimensions: int) -> Floats:
    """Capacities [features] that minimise the toy model's loss with sum C_i <= `dimensions` (m).

    For k = `kurtosis` > 3 every L_i is convex, and C_i = clip((v_i (k-1) s - 2) / (k-3), 0, 1) with
    the s at which the capacities sum to m: important features get a dimension each, less important
    ones share, the least important are ignored. For 1 < k < 3 every L_i is concave, so the optimum
    is a corner: the m most important features get 1, the others 0. At k = 3 the L_i are linear and
    that corner is an optimum, the only one unless the m-th and the next importance are equal; ties
    go to the feature that comes first. Zero importance gets 0; with m or fewer features of positive
    importance each gets 1 and the rest of the dimensions is left over.

    Raises `DataError` unless k > 1: at k = 1, x_i^2 is constant and there is nothing to embed.
    Source: Scherlis et al. 2022 (quadratic toy model).
    """
    v, k = _model(importance, kurtosis)
    m = count(dimensions, "dimensions")
    capacity = np.zeros(len(v))
    v = v / (v.max() or 1.0)
    used = np.flatnonzero(v > 1e-300)  # below this the arithmetic knows no difference from 0
    if len(used) <= m:
        capacity[used] = 1.0
    elif k <= 3:
        capacity[np.argsort(-v, kind="stable")[:m]] = 1.0
    else:
        capacity[used] = _water_fill(v[used], k, m)
    return capacity


def _water_fill(v: Floats, k: float, m: int) -> Floats:
    """clip((v (k-1) s - 2) / (k-3), 0, 1) at the s where it sums to m < len(v); v > 0, k > 3."""
    # The sum is linear in s between the points where a feature enters and where it is full:
    # bisect over those points, then interpolate.
    enters, full = 2 / (v * (k - 1)), 1 / v
    points = np.unique(np.concatenate([enters, full]))

    def at(s: float) -> Floats:
        return np.where(s >= full, 1.0, np.clip((v * (k - 1) * s - 2) / (k - 3), 0.0, 1.0))

    low, high = 0, len(points) - 1  # sums 0 and len(v)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(points[middle]).sum() <= m else (low, middle)
    below, above = at(points[low]), at(points[high])
    share = (m - below.sum()) / (above.sum() - below.sum())
    return np.asarray(np.minimum(below + share * (above - below), 1.0))


def optimal_embedding(importance: Array, kurtosis: float, dimensions: int) -> Floats:
    """An embedding [features, dimensions] that attains the minimum of `quadratic_loss`.

    One always exists: features with capacity 1 get an axis each, and the ones that share form a
    tight frame with squared norms C_i / s in the remaining axes (Schur-Horn), where each feature's
    interference is what the allocation assumes. It is not unique: any rotation of it serves, and so
    does any other tight frame of the same norms.
    """
    capacity = optimal_allocation(importance, kurtosis, dimensions)
    v, k = _model(importance, kurtosis)
    norms = (k - 1) * v * capacity / (2 + (k - 3) * capacity)
    w = np.zeros((len(v), dimensions))
    alone = np.flatnonzero(capacity == 1)
    w[alone, np.arange(len(alone))] = np.sqrt(norms[alone])
    shared = np.flatnonzero((capacity > 0) & (capacity < 1))
    if len(shared):
        c = capacity[shared]
        frame = _rows_with_norms(c, round(float(c.sum())))
        scale = np.sqrt(norms[shared] / c)[:, None]  # the same for all: 1 / sqrt(s)
        w[shared, len(alone) : len(alone) + frame.shape[1]] = scale * frame
    return w


def _rows_with_norms(squared: Floats, rank: int) -> Floats:
    """[n, rank] with orthonormal columns and rows of the given squared norms, which sum to rank."""
    n = len(squared)
    rows = np.eye(n, rank)
    left = list(range(n))  # rows not settled yet, longest first
    settled = np.empty(n, dtype=int)
    for feature in np.argsort(-squared)[:-1]:
        target = squared[feature]
        norms = (rows[left] ** 2).sum(1)
        # Rotating neighbours that enclose the target keeps the remaining targets attainable.
        i = int(np.clip(np.searchsorted(-norms, -target, side="right") - 1, 0, len(left) - 2))
        a, b = left[i], left[i + 1]
        inner, rise, fall = rows[a] @ rows[b], norms[i] - target, target - norms[i + 1]
        root = np.copysign(np.sqrt(max(inner**2 + rise * fall, 0.0)), inner)
        angle = np.arctan2(-rise, inner + root)
        cos, sin = np.cos(angle), np.sin(angle)
        rows[[a, b]] = [[cos, sin], [-sin, cos]] @ rows[[a, b]]
        settled[feature] = a
        left.remove(a)
    settled[np.argsort(-squared)[-1]] = left[0]
    return np.asarray(rows[settled])


def _model(importance: Array, kurtosis: float) -> tuple[Floats, float]:
    v = within(importance, "importance", 0, dimensions=1)
    return v, number(kurtosis, "kurtosis", 1, open_low=True)
