"""What spectrum a sample of n rows shows when that of the population is known, without simulation.

The eigenvalues of a sample covariance are not those of the population: they spread, the more so the
closer the number of samples is to the width. For Gaussian rows the spread is known in the limit of
large n and width through the fixed point of Silverstein (1995, J. Multivariate Anal. 55),

    z = w (1 + 1/n sum_j tau_j / (w - tau_j)),    w = -1/m(z), m the companion Stieltjes transform,

on the curve of the upper half plane where z is real. Three things follow in closed form from w:

- the number of sample eigenvalues above z, and so the quantile of every rank (`sample_spectrum`);
- the response d log(sample eigenvalue) / d log(tau_j), a set of weights that sum to one (the
  kernel of Ledoit & Péché 2011);
- the covariance of sample eigenvalues, from that of the counts N above x and y (Bai & Silverstein
  2004, Ann. Probab. 32, theorem 1.1):
  Cov(N(x), N(y)) = 1/pi^2 log |(w_x - conj w_y) / (w_x - w_y)|.

The mean eigenvalues differ from the limit by a part of a rank (`_mean_shift`). Against simulation
the expected log eigenvalues agree to within 1/n and the variances to some per
cent, from isolated leading eigenvalues to n < width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.errors import DataError
from polycode_plugins.metrics.spectrum.law.levels import Levels, every_rank
from polycode_plugins.metrics.spectrum.law.start import Start, between
from polycode_plugins.metrics.spectrum.rows.correlated_spectrum import (
    densities,
    found_from,
    kernel,
    moved_counts,
    profile,
    responses,
    solve,
)
from polycode_plugins.metrics.spectrum.rows.correlation import INDEPENDENT, RowCorrelation

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

MAX_OUTER = 200
MAX_INNER = 100
COUNT_TOLERANCE = 1e-6  # in ranks
KERNEL_NODES = 26
CHUNK = 2_000_000  # elements of a [nodes, width] work array


@dataclass(frozen=True, eq=False)
class SampleSpectrum:
    """Sample eigenvalues at some ranks, and how they respond and vary.

    values: [nodes] geometric mean of the eigenvalue of each rank, in the population's unit.
    limit: [nodes] the same in the limit of large n.
    response: [nodes, levels] d log(limit) / d log(population eigenvalue); rows sum to 1.
    points: [nodes] complex, the point w of the curve.
    log_spacing: [nodes] -d log(value) / d rank.
    speed: [nodes] |dw / d rank|.
    alone: [nodes] the largest response to one eigenvalue.
    start: for a search at a similar population.
    surplus: gives [nodes, nodes] what correlated rows add to that of `covariance`; None for none.
    doubts: gives [nodes] changes of log(value) with each doubt of the rows' correlation.
    """

    values: Array
    limit: Array
    response: Array
    points: Complex
    log_spacing: Array
    speed: Array
    alone: Array
    start: Start
    surplus: Callable[[], Array] | None = None
    doubts: Callable[[], list[Array]] | None = None

    def covariance(self, cells: Array) -> Array:
        """Covariance [nodes, nodes] of the mean log eigenvalue over cells of ranks.

        cells: [nodes] how many consecutive ranks each node stands for, centred on it.
        """
        w = self.points
        apart = np.abs(w[:, None] - w)
        np.fill_diagonal(apart, 1.0)
        cov = np.log(np.abs(w[:, None] - w.conj()) / apart)
        # A cell with itself: the average of the kernel over the cell, the curve taken as straight.
        k = 2 * w.imag / (self.speed * cells)
        dense = np.log1p(k**2) / 2 + 2 * k * np.arctan(1 / k) - k**2 * np.log1p(k**-2) / 2
        # It is not straight where a level stands alone: a semicircle, and a variance of 2/n.
        alone = 2 / cells
        np.fill_diagonal(cov, (1 - self.alone) * dense + self.alone * alone)
        if self.surplus is not None:
            cov = cov + self.surplus()
        return np.asarray(cov / np.pi**2 * np.outer(self.log_spacing, self.log_spacing))


def sample_spectrum(
    population: Array,
    dof: float,
    ranks: NDArray[np.int64],
    start: Start | None = None,
    rows: RowCorrelation = INDEPENDENT,
    grouped: Levels | None = None,
) -> SampleSpectrum:
    """The sample eigenvalues that a population spectrum leads one to expect.

    population: [width] positive eigenvalues; in descending order where rows are correlated.
    dof: degrees of freedom n of the sample covariance: samples - 1 after centring.
    ranks: [nodes] integer ranks from 1 (the largest eigenvalue) to min(width, n).
    start: that of an earlier call for a similar population, to save time.
    rows: how the samples are correlated; ranks then end at `rows.ranks(dof, width)`.
    grouped: eigenvalues that may be taken as one, see `levels`.

    Raises DataError where the fixed point is not found.
    """
    grouped = grouped or every_rank(len(population))
    start = None if start is None else start.moved(population)
    if rows.repeated:
        dof /= rows.copies
    elif not rows.independent:
        return _correlated(population, dof, ranks, start, rows, grouped)
    begin = None if start is None else start.independent(ranks)
    size = max(1, CHUNK // len(grouped.counts))
    parts = [
        _solve(
            population,
            dof,
            ranks[i : i + size],
            None if begin is None else begin[i : i + size],
            grouped,
        )
        for i in range(0, len(ranks), size)
    ]
    if len(parts) == 1:
        return parts[0]
    names = ("values", "limit", "response", "points", "log_spacing", "speed", "alone")
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(p, name) for p in parts]) for name in names
    }
    held, points = grouped.mean(population), joined["points"]
    return SampleSpectrum(**joined, start=Start(ranks, grouped, held, points, joined["response"]))


def _correlated(
    population: Array,
    dof: float,
    ranks: NDArray[np.int64],
    start: Start | None,
    rows: RowCorrelation,
    grouped: Levels,
) -> SampleSpectrum:
    """The sample spectrum for correlated rows: from the points of a similar one, or step by step
    from those for independent rows."""
    form = profile(rows, tuple(grouped.ranks.tolist()))
    held, counts = grouped.mean(population), grouped.counts
    found, known = None, np.zeros(len(ranks), dtype=bool)
    begin = None if start is None else start.correlated(ranks, grouped, held, dof, form)
    while begin is not None:
        left = ~known
        tried, led = solve(held, counts, dof, ranks[left], begin, form)
        if found is None:
            found = tried
        else:
            found.put(left, tried)
        known[left] = led
        if known.all() or not led.any():
            break
        # The few that went astray begin anew between those that did not.
        nodes = between(ranks[known], ranks[~known])
        x = np.exp(nodes @ np.log(found.x[known]))
        begin = x, (nodes @ (found.e * found.x[:, None])[known]) / x[:, None]
    if (left := ~known).any():
        alone = sample_spectrum(population, dof, ranks[left], grouped=grouped)
        apart = (alone.values, -1 / alone.points)
        others = found_from(held, counts, dof, ranks[left], apart, form)
        if others is None:
            raise _not_found(int(ranks[left][-1]), dof, len(population))
        if found is None:
            found = others
        else:
            found.put(left, others)
    assert found is not None
    own = grouped.of(ranks)
    response = responses(found, held, counts, form)
    density = dof * (found.resolvent @ form.weights).imag / np.pi  # ranks per unit of x
    loadings = form.loadings[:, own].T
    w = -1 / np.sum(found.e * loadings, axis=1)
    moved = np.sum(found.moved * loadings, axis=1) * w**2  # dw / dx

    def surplus() -> Array:
        """It is smooth, so that few nodes are enough."""
        order = np.argsort(ranks)
        few = order[np.unique(np.linspace(0, len(ranks) - 1, KERNEL_NODES).astype(np.int64))]
        at = np.log(ranks)
        between = np.stack([np.interp(at, at[few], row) for row in np.eye(len(few))], axis=1)
        return np.asarray(
            between @ kernel(found.of(few), held, counts, dof, form, own[few]) @ between.T
        )

    log_spacing = 1 / (density * found.x)

    def doubts() -> list[Array]:
        now, *others = densities(rows, tuple(grouped.ranks.tolist()))
        return [log_spacing * m for m in moved_counts(found, held, counts, dof, now, others)]

    return SampleSpectrum(
        found.further * _mean_shift(found.determinant, log_spacing),
        found.further,
        response,
        w,
        log_spacing,
        np.abs(moved) / density,
        (response / counts).max(axis=1),
        Start(ranks, grouped, held, w, response, found.x, found.e, form),
        surplus,
        doubts,
    )


def _mean_shift(determinant: Complex, log_spacing: Array) -> Array:
    """What the finite number of samples does to the expected eigenvalues, as a factor.

    The mean of the central limit theorem for real samples (Bai & Silverstein 2004, theorem 1.1):
    log(dz / dw) / 4 pi i in the counts, which is arg(dz / dw) / 2 pi: up to a quarter of a rank, at
    the edges.
    """
    return np.asarray(np.exp(np.angle(determinant) / (2 * np.pi) * log_spacing))


def _height(a: Array, population: Array, weight: Array, s: Array) -> Array:
    """The square of the curve's height over each a: 1/n sum_j tau_j^2 / ((a - tau_j)^2 + s) = 1.

    1 / (left-hand side) is concave and increasing in s, so that Newton's method cannot miss. Where
    the curve lies on the axis (a gap between levels) the answer is a floor next to zero.
    """
    distance = (a[:, None] - population) ** 2
    floor = 1e-20 * a * a + 1e-280
    for _ in range(MAX_INNER):
        q = 1 / (distance + s[:, None])
        g = q @ weight
        q *= q
        new = np.maximum(s + g * (g - 1) / (q @ weight), floor)
        settled = np.abs(new - s) <= 1e-9 * new
        s = new
        if settled.all():
            break
    return s


def _solve(
    population: Array,
    dof: float,
    ranks: NDArray[np.int64],
    start: Complex | None,
    grouped: Levels,
) -> SampleSpectrum:
    """Find the point of the curve with rank - 1/2 sample eigenvalues above it, for every rank.

    The count falls as a = Re w grows, so each rank keeps a bracket; Newton's step is taken where it
    stays inside and a bisection where it does not.
    """
    sorted_, width = np.sort(population)[::-1], len(population)
    population, counts = grouped.mean(population), grouped.counts
    single, weight = counts * population, counts * population**2 / dof
    reach = np.sqrt(weight.sum())
    target = ranks - 0.5
    low = np.full(len(ranks), -reach if dof < width else population.min() * 1e-9)
    high = np.full(len(ranks), population.max() + reach)
    if start is None:
        a = sorted_[ranks - 1]
        s = a * a / dof
    else:
        a, s = start.real.copy(), start.imag**2
    points = np.empty(len(ranks), dtype=complex)
    response = np.empty((len(ranks), len(population)))
    values, limit, log_spacing, speed, alone = (np.empty(len(ranks)) for _ in range(5))
    todo = np.arange(len(ranks))
    for _ in range(MAX_OUTER):
        s[todo] = _height(a[todo], population, weight, s[todo])
        re, im = a[todo], np.sqrt(s[todo])
        w = re + 1j * im
        apart = re[:, None] - population
        q = 1 / (apart**2 + s[todo][:, None])
        inverse = apart * q  # 1 / (w - tau) = inverse - i im q
        z = w * (1 + (inverse @ single - 1j * im * (q @ single)) / dof)
        dz_dw = 1 + 2j * im * ((inverse * q) @ weight)
        dz_dw -= (inverse**2) @ weight - s[todo] * ((q * q) @ weight)
        size2, angle = np.abs(w) ** 2, np.angle(w)
        above = (np.pi / 2 - np.arctan(apart / im[:, None])) @ counts - width * angle
        above += dof * (angle - z.real * im / size2)
        missing = target[todo] - above / np.pi
        density = dof * im / (np.pi * size2)  # ranks per unit of z
        low[todo] = np.where(missing < 0, re, low[todo])
        high[todo] = np.where(missing < 0, high[todo], re)

        found = np.abs(missing) < COUNT_TOLERANCE
        done = todo[found]
        x = z.real - missing / density
        limit[done] = x[found]
        values[done] = (x * _mean_shift(dz_dw, 1 / (density * x)))[found]
        points[done] = w[found]
        log_spacing[done] = (1 / (density * x))[found]
        speed[done] = np.abs(1 / (density * dz_dw))[found]
        pull = population * q[found]
        pull /= (pull @ counts)[:, None]
        alone[done] = pull.max(axis=1)
        response[done] = pull * counts
        todo = todo[~found]
        if len(todo) == 0:
            return SampleSpectrum(
                values,
                limit,
                response,
                points,
                log_spacing,
                speed,
                alone,
                Start(ranks, grouped, population, points, response),
            )

        lo, hi = low[todo], high[todo]
        step = a[todo] - (missing / density * (1 / dz_dw).real)[~found]
        flat = s[todo] <= 1e-19 * a[todo] ** 2
        middle = np.where((lo > 0) & (hi > 4 * lo), np.sqrt(np.abs(lo * hi)), (lo + hi) / 2)
        a[todo] = np.where((step > lo) & (step < hi) & ~flat, step, middle)
        s[todo] = np.maximum(s[todo], 1e-8 * a[todo] ** 2 / dof)
    raise _not_found(int(ranks[todo[0]]), dof, width)


def _not_found(rank: int, dof: float, width: int) -> DataError:
    return DataError(
        f"the expected sample spectrum was not found at rank {rank} (n = {dof:g}, width {width}); "
        'narrow `ranks`, or use a fit that needs no correction, such as fit="stringer"'
    )
