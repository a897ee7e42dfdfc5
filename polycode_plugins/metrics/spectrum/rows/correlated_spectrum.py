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

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.metrics.spectrum.rows.correlation import RowCorrelation

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

STEPS = 25
GROWTH = 1.5  # of a step on the way from independent rows, after one that led on
EARLY, AWAY = 5, 0.5  # a search that is so many ranks away after so many steps goes astray
TOLERANCE = 1e-3  # in ranks; the step that is left brings x to its square
TERM = 2e-2  # root mean square of a term of a profile below which it is left out
BESIDE = 1e-4  # in units of x: how far apart two points stand for one where a formula is 0 / 0


@dataclass(frozen=True, eq=False)
class Profile:
    """f_j(u) = sum_r loadings[r, j] shapes[r, u], of which the first is the mean over levels.

    loadings: [terms, levels]; shapes: [terms, frequencies]; weights: [frequencies].
    """

    loadings: Array
    shapes: Array
    weights: Array

    @cached_property
    def products(self) -> _Products:
        """Of pairs of terms."""
        return _Products(self)

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


@lru_cache(maxsize=16)
def densities(rows: RowCorrelation, ranks: tuple[float, ...]) -> list[tuple[Array, Array]]:
    """f and weights at these ranks, of the rows' correlation and then of each of its doubts."""
    return [one.density(np.asarray(ranks)) for one in (rows, *rows.doubted)]


@dataclass(frozen=True, eq=False)
class Points:
    """Points of the real axis, and the fixed point there.

    x: [nodes]; further: [nodes] x after one more step; e: [nodes, terms]; inverse: [nodes, levels]
    1 / (1 + delta); resolvent: [nodes, frequencies] T; moved: [nodes, terms] de / dx; determinant:
    [nodes] of 1 - M P.
    """

    x: Array
    further: Array
    e: Complex
    inverse: NDArray[Any]
    resolvent: NDArray[Any]
    moved: NDArray[Any]
    determinant: NDArray[Any]

    def of(self, nodes: NDArray[np.int64]) -> Points:
        """Some of the points."""
        return Points(*(getattr(self, name)[nodes] for name in self.__dataclass_fields__))

    def put(self, nodes: NDArray[Any], other: Points) -> None:
        """Take these points from `other`, which has no more."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[nodes] = getattr(other, name)


class _Products:
    """Products of pairs of a profile's terms, which are symmetric."""

    def __init__(self, form: Profile) -> None:
        count = len(form.loadings)
        first, second = np.triu_indices(count)
        self.place = np.zeros((count, count), dtype=np.int64)
        self.place[first, second] = self.place[second, first] = np.arange(len(first))
        self.loadings = (form.loadings[first] * form.loadings[second]).T
        self.shapes = (form.shapes[first] * form.shapes[second] * form.weights).T


# A point that goes astray may leave all bounds before it is let go.
@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def solve(
    population: Array,
    counts: Array,
    dof: float,
    ranks: NDArray[np.int64],
    start: tuple[Array, Complex],
    form: Profile,
) -> tuple[Points, NDArray[np.bool_]]:
    """The points with rank - 1/2 sample eigenvalues above, and where Newton's method found them.

    population, counts: [levels] and how many eigenvalues stand at each. start: x and e to begin.
    """
    x, e = start
    nodes, terms = e.shape
    products = form.products
    weight = counts * population / dof
    weighted = weight[:, None] * form.loadings.T
    twice = (weight * population)[:, None] * products.loadings
    kinds = ((terms,), (len(counts),), (len(form.weights),), (terms,), ())
    found = Points(
        np.ones(nodes), np.ones(nodes), *(np.zeros((nodes, *k), dtype=complex) for k in kinds)
    )
    known = np.zeros(nodes, dtype=bool)
    todo, target = np.arange(nodes), ranks - 0.5
    for attempt in range(STEPS):
        # In real numbers, which take half the time: 1 + delta, its imaginary part, 1 / (1 + delta).
        near = 1 + population * (e.real @ form.loadings)
        height = population * (e.imag @ form.loadings)
        size = 1 / (near**2 + height**2)
        real, imaginary = near * size, -height * size
        inner = (real @ weighted) + 1j * (imaginary @ weighted)
        beyond = x[:, None] - inner @ form.shapes
        resolvent = -1 / beyond
        off = e - (resolvent * form.weights) @ form.shapes.T
        # The imaginary part of V; log(-beyond) would be on its branch cut where rows are lost.
        energy = np.arctan2(height, near) @ counts / dof + np.angle(beyond) @ form.weights
        energy -= np.sum(inner * e, axis=1).imag
        missing = target - dof * energy / np.pi
        second = (real**2 - imaginary**2) @ twice + 2j * ((real * imaginary) @ twice)
        second = second[:, products.place]
        square = resolvent**2
        mixed = (square @ products.shapes)[:, products.place]
        along = (square * form.weights) @ form.shapes.T
        rest = np.eye(terms) - mixed @ second
        try:
            solved = np.linalg.solve(rest, np.stack([off, along], axis=2))
        except np.linalg.LinAlgError:
            break
        back, moved = solved[:, :, 0], solved[:, :, 1]
        worst = np.maximum(
            np.abs(missing), dof * np.abs(off).max(axis=1) / np.abs(e).max(axis=1) / 10
        )
        lean = np.einsum("nr,nrs->ns", off, second)
        pull = (np.sum(lean * moved, axis=1) - resolvent @ form.weights).imag
        step_x = (np.pi * missing / dof + np.sum(lean * back, axis=1).imag) / pull
        step_e = moved * step_x[:, None] - back
        if (done := worst < TOLERANCE).any():
            parts = (x, x + step_x, e, real, resolvent, moved, _determinant(rest))
            new = Points(*(part[done] for part in parts))
            new = replace(new, inverse=new.inverse + 1j * imaginary[done])
            found.put(todo[done], new)
            known[todo[done]] = (found.x > 0)[todo[done]]
        going = ~done & (worst < (AWAY if attempt == EARLY else np.inf))
        if not going.any():
            break
        x, e, step_x, step_e, height, todo, target = (
            part[going] for part in (x, e, step_x, step_e, height, todo, target)
        )
        # Im delta stays positive in every direction, and x too.
        fall = (population * (step_e.imag @ -form.loadings) / height).max(axis=1)
        share = np.minimum(1.0, 0.5 / np.maximum(fall, 1e-300))
        share = np.minimum(share, 0.5 * x / np.maximum(np.abs(step_x), 1e-300))
        x, e = x + share * step_x, e + share[:, None] * step_e
    return found, known


def solution_near(
    x: Array, integrals: Complex, population: Array, counts: Array, dof: float, form: Profile
) -> Complex:
    """[nodes, terms] e at x [nodes], from int f_j T du [nodes, levels] of a similar solution."""
    inner = (counts * population / dof / (1 + population * integrals)) @ form.loadings.T
    resolvent = 1 / (inner @ form.shapes - x[:, None])
    return np.asarray((resolvent * form.weights) @ form.shapes.T)


def found_from(
    population: Array,
    counts: Array,
    dof: float,
    ranks: NDArray[np.int64],
    start: tuple[Array, Complex],
    form: Profile,
) -> Points | None:
    """The points, from those for independent rows: `start` is their x and -1/w.

    At once where that leads on, and step by step elsewhere.
    """
    x, e = start[0], np.zeros((len(ranks), len(form.loadings)), dtype=complex)
    e[:, 0] = start[1]
    found, known = solve(population, counts, dof, ranks, (x, e), form)
    left = ~known
    if not left.any():
        return found
    x, e, ranks = x[left], e[left], ranks[left]
    share, step = 0.0, 0.5
    before: tuple[float, Array, Complex] | None = None
    while step > 1e-3:
        nearer = min(1.0, share + step)
        begin = (x, e)
        if before is not None:  # on as from the last but one to the last
            further = (nearer - share) / (share - before[0])
            begin = (x * (x / before[1]) ** further, e + (e - before[2]) * further)
        tried, known = solve(population, counts, dof, ranks, begin, form.share(nearer))
        if not known.all():
            step /= 2
            continue
        if nearer == 1:
            found.put(left, tried)
            return found
        before, step = (share, x, e), step * GROWTH
        share, x, e = nearer, tried.x, tried.e
    return None


def moved_counts(
    points: Points,
    population: Array,
    counts: Array,
    dof: float,
    now: tuple[Array, Array],
    others: list[tuple[Array, Array]],
) -> list[Array]:
    """[nodes] by how much the counts above change from the densities f to each of the others, to
    first order.

    The free energy is stationary, so that only the place where f stands in it counts.

    now, others: f [levels, frequencies] and weights.
    """
    weight = (counts * population / dof) * points.inverse

    def energy(found: Array, weights: Array) -> Array:
        return np.asarray(np.angle(points.x[:, None] - weight @ found) @ weights)

    before = energy(*now)
    return [dof / np.pi * (energy(*other) - before) for other in others]


def responses(points: Points, population: Array, counts: Array, form: Profile) -> Array:
    """[nodes, levels] d log(sample eigenvalue) / d log(population eigenvalue); rows sum to 1."""
    height = points.e.imag @ form.loadings
    weights = counts * population * height * (points.inverse.real**2 + points.inverse.imag**2)
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
    products = form.products
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


def _determinant(matrices: NDArray[Any]) -> Complex:
    """Of [.., k, k]: LAPACK one by one is slow for so many of so few rows."""
    if matrices.shape[-1] == 1:
        return np.asarray(matrices[..., 0, 0])
    if matrices.shape[-1] == 2:
        one, other = matrices[..., 0, 0], matrices[..., 0, 1]
        return np.asarray(one * matrices[..., 1, 1] - other * matrices[..., 1, 0])
    return np.asarray(np.linalg.det(matrices))
