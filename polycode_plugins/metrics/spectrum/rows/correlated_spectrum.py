"""The sample spectrum when rows are correlated with one another, as the tokens of a text are.

Rows X with X_tj = sqrt(tau_j) (R_j^(1/2) z_j)_t have a correlation R_j of their own in every
direction j of the population. Where these have common eigenvectors (those of stationary documents
are frequencies) with eigenvalues f_j(u), X is a Gaussian matrix with a variance profile, and in the
limit of large n and width (Girko; Hachem, Loubaton & Najim 2007, Ann. Appl. Probab. 17) the
spectrum of X X^T / n follows from

    T(u) = 1 / (1/n sum_j tau_j f_j(u) / (1 + delta_j) - z),    delta_j = tau_j int f_j T du.

A profile f_j(u) = sum_r a_rj phi_r(u) of few terms leaves one unknown e_r = int phi_r T du each.
The counts of eigenvalues come from the free energy, which is stationary in e,

    V = int log(1/T) du + 1/n sum_j log(1 + delta_j) - sum_r e_r A_r,
    A_r = 1/n sum_j tau_j a_rj / (1 + delta_j),

as n + n Im V / pi above z, with the logarithm below the real axis, and so does their response to
tau. Their covariance is the log-determinant of 1 - M P (Hachem, Loubaton & Najim 2008, Ann. Appl.
Probab. 18), with M_rs = 1/n sum_j tau_j^2 a_rj a_sj / (1 + delta_j)(1 + delta'_j) and
P_rs = int phi_r phi_s T T' du.
One term alone (rows correlated alike in all directions) is Paul & Silverstein 2009, J. Multivariate
Anal. 100, and f = 1 the fixed point of `sample_spectrum`, with w = -1/e.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.metrics.spectrum.rows.correlation import RowCorrelation

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

STEPS = 25
GROWTH = 1.5  # of a step on the way from independent rows, after one that led on
EARLY, AWAY = 5, 0.5  # a search that is so many ranks away after so many steps goes astray
TOLERANCE = 1e-5  # in ranks
TERM = 5e-3  # root mean square of a term of a profile below which it is left out
BESIDE = 1e-4  # in units of x: how far apart two points stand for one where a formula is 0 / 0


@dataclass(frozen=True, eq=False)
class Profile:
    """f_j(u) = sum_r loadings[r, j] shapes[r, u], of which the first is the mean over levels.

    loadings: [terms, levels]; shapes: [terms, frequencies]; weights: [frequencies].
    """

    loadings: Array
    shapes: Array
    weights: Array

    def share(self, t: float) -> Profile:
        """A profile on the way from independent rows, t = 0, to this one, t = 1."""
        shapes = self.shapes * t
        shapes[0] += 1 - t
        return Profile(self.loadings, shapes, self.weights)


@lru_cache(maxsize=64)
def profile(rows: RowCorrelation, ranks: tuple[float, ...]) -> Profile:
    """The profile of a population's levels, which stand at these ranks."""
    found, weights = rows.density(np.asarray(ranks))
    root = np.sqrt(weights)
    mean = found.mean(axis=0)
    left, sizes, right = np.linalg.svd((found - mean) * root, full_matrices=False)
    kept = int(np.sum(sizes > TERM * np.sqrt(len(found))))
    return Profile(
        np.vstack([np.ones(len(found)), (left[:, :kept] * sizes[:kept]).T]),
        np.vstack([mean, right[:kept] / root]),
        weights,
    )


@dataclass(frozen=True, eq=False)
class Points:
    """Points of the real axis, and the fixed point there.

    x: [nodes]; e: [nodes, terms]; inverse: [nodes, levels] 1 / (1 + delta); resolvent: [nodes,
    frequencies] T; moved: [nodes, terms] de / dx; determinant: [nodes] of 1 - M P.
    """

    x: Array
    e: Complex
    inverse: NDArray[Any]
    resolvent: NDArray[Any]
    moved: NDArray[Any]
    determinant: NDArray[Any]

    def of(self, nodes: NDArray[np.int64]) -> Points:
        """Some of the points."""
        return Points(*(getattr(self, name)[nodes] for name in self.__dataclass_fields__))


class _Products:
    """Products of pairs of terms, which are symmetric."""

    def __init__(self, form: Profile) -> None:
        count = len(form.loadings)
        first, second = np.triu_indices(count)
        self.place = np.zeros((count, count), dtype=np.int64)
        self.place[first, second] = self.place[second, first] = np.arange(len(first))
        self.loadings = (form.loadings[first] * form.loadings[second]).T
        self.shapes = (form.shapes[first] * form.shapes[second] * form.weights).T


def solve(
    population: Array,
    counts: Array,
    dof: float,
    ranks: NDArray[np.int64],
    start: tuple[Array, Complex],
    form: Profile,
) -> Points | None:
    """The points with rank - 1/2 sample eigenvalues above; None if Newton's method fails.

    population, counts: [levels] and how many eigenvalues stand at each. start: x and e to begin.
    """
    x, e = start[0].copy(), start[1].copy()
    target = ranks - 0.5
    products = _Products(form)
    weight = counts * population / dof
    for attempt in range(STEPS):
        delta = population * (e @ form.loadings)
        inverse = 1 / (1 + delta)
        inner = (weight * inverse) @ form.loadings.T
        beyond = x[:, None] - inner @ form.shapes
        resolvent = -1 / beyond
        off = e - (resolvent * form.weights) @ form.shapes.T
        # The imaginary part of V; log(-beyond) would be on its branch cut where rows are lost.
        energy = np.angle(1 + delta) @ counts / dof + np.angle(beyond) @ form.weights
        energy -= np.sum(inner * e, axis=1).imag
        missing = target - dof * energy / np.pi
        second = ((weight * population * inverse**2) @ products.loadings)[:, products.place]
        square = resolvent**2
        mixed = (square @ products.shapes)[:, products.place]
        along = (square * form.weights) @ form.shapes.T
        rest = np.eye(e.shape[1]) - mixed @ second
        try:
            solved = np.linalg.solve(rest, np.stack([off, along], axis=2))
        except np.linalg.LinAlgError:
            return None
        back, moved = solved[:, :, 0], solved[:, :, 1]
        worst = np.maximum(
            np.abs(missing), dof * np.abs(off).max(axis=1) / np.abs(e).max(axis=1) / 10
        )
        if not np.isfinite(worst).all() or (attempt == EARLY and worst.max() > AWAY):
            return None
        if worst.max() < TOLERANCE:
            if (x <= 0).any():
                return None
            return Points(x, e, inverse, resolvent, moved, _determinant(rest))
        lean = np.einsum("nr,nrs->ns", off, second)
        pull = (np.sum(lean * moved, axis=1) - resolvent @ form.weights).imag
        step_x = (np.pi * missing / dof + np.sum(lean * back, axis=1).imag) / pull
        step_e = moved * step_x[:, None] - back
        # Im delta stays positive in every direction, and x too.
        height = (e @ form.loadings).imag
        fall = (-(step_e @ form.loadings).imag / height).max(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.minimum(1.0, 0.5 / np.maximum(fall, 1e-300))
            size = np.minimum(size, 0.5 * x / np.maximum(np.abs(step_x), 1e-300))
        x, e = x + size * step_x, e + size[:, None] * step_e
    return None


def found_from(
    population: Array,
    counts: Array,
    dof: float,
    ranks: NDArray[np.int64],
    start: tuple[Array, Complex],
    form: Profile,
) -> Points | None:
    """The points, step by step from those for independent rows: `start` is their x and -1/w."""
    x, e = start[0], np.zeros((len(ranks), len(form.loadings)), dtype=complex)
    e[:, 0] = start[1]
    share, step, found = 0.0, 1.0, None
    before: tuple[float, Array, Complex] | None = None
    while share < 1 and step > 1e-3:
        nearer = min(1.0, share + step)
        begin = (x, e)
        if before is not None:  # on as from the last but one to the last
            further = (nearer - share) / (share - before[0])
            begin = (x * (x / before[1]) ** further, e + (e - before[2]) * further)
        tried = solve(population, counts, dof, ranks, begin, form.share(nearer))
        if tried is None:
            step /= 2
        else:
            before, step = (share, x, e), step * GROWTH
            share, x, e, found = nearer, tried.x, tried.e, tried
    return found if share == 1 else None


def moved_counts(
    points: Points,
    population: Array,
    counts: Array,
    dof: float,
    densities: tuple[tuple[Array, Array], tuple[Array, Array]],
) -> Array:
    """[nodes] by how much the counts above change with the densities f, to first order.

    The free energy is stationary, so that only the place where f stands in it counts.

    densities: f [levels, frequencies] and weights, before and after.
    """
    weight = (counts * population / dof) * points.inverse
    before, after = (
        (np.log(points.x[:, None] - weight @ found) @ weights).imag for found, weights in densities
    )
    return np.asarray(dof / np.pi * (after - before))


def responses(points: Points, population: Array, counts: Array, form: Profile) -> Array:
    """[nodes, levels] d log(sample eigenvalue) / d log(population eigenvalue); rows sum to 1."""
    height = (points.e @ form.loadings).imag
    weights = counts * population * height * np.abs(points.inverse) ** 2
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def kernel(
    points: Points,
    population: Array,
    counts: Array,
    dof: float,
    form: Profile,
    own: NDArray[np.int64],
) -> Array:
    """The covariance of counts, [nodes, nodes], as a surplus over that of independent rows.

    It is what log |det(1 - M P) (x, y) / det(1 - M P) (x, conj y)| is more than
    log |(w_x - conj w_y) / (w_x - w_y)|, with w = -tau / delta of each node's own level (`own`,
    [nodes]), and finite for a node with itself.
    """
    products = _Products(form)
    terms = len(form.loadings)
    weight = counts * population**2 / dof
    loadings = form.loadings[:, own].T
    w = -1 / np.sum(points.e * loadings, axis=1)

    def logs(second: Complex, mixed: Complex) -> Array:
        """Of |det(1 - M P)|, from the products of terms [.., pairs of terms]."""
        inner = second[..., products.place] @ mixed[..., products.place]
        return np.asarray(np.log(np.abs(_determinant(np.eye(terms) - inner))))

    def between(inverse: Complex, resolvent: Complex) -> Array:
        second = [(points.inverse * (weight * v)) @ inverse.T for v in products.loadings.T]
        mixed = [(points.resolvent * v) @ resolvent.T for v in products.shapes.T]
        return logs(np.stack(second, axis=2), np.stack(mixed, axis=2))

    inverse, resolvent = points.inverse, points.resolvent
    apart = np.log(np.abs((w[:, None] - w.conj()) / (w[:, None] - w + np.eye(len(w)))))
    with np.errstate(divide="ignore"):
        surplus = between(inverse, resolvent) - between(inverse.conj(), resolvent.conj()) - apart
    # A node with itself: with a point beside it.
    e = points.e + points.moved * (BESIDE * points.x)[:, None]
    inverse = 1 / (1 + population * (e @ form.loadings))
    inner = (counts * population / dof * inverse) @ form.loadings.T
    resolvent = 1 / (inner @ form.shapes - (points.x * (1 + BESIDE))[:, None])
    near = -1 / np.sum(e * loadings, axis=1)

    def beside(inverse: Complex, resolvent: Complex) -> Array:
        return logs(
            (points.inverse * inverse * weight) @ products.loadings,
            (points.resolvent * resolvent) @ products.shapes,
        )

    own_surplus = beside(inverse, resolvent) - beside(inverse.conj(), resolvent.conj())
    np.fill_diagonal(surplus, own_surplus - np.log(np.abs((w - near.conj()) / (w - near))))
    return np.asarray((surplus + surplus.T) / 2)


def _determinant(matrices: Complex) -> Complex:
    """Of [.., k, k]: LAPACK one by one is slow for so many of so few rows."""
    if matrices.shape[-1] == 1:
        return np.asarray(matrices[..., 0, 0])
    if matrices.shape[-1] == 2:
        one, other = matrices[..., 0, 0], matrices[..., 0, 1]
        return np.asarray(one * matrices[..., 1, 1] - other * matrices[..., 1, 0])
    return np.asarray(np.linalg.det(matrices))
