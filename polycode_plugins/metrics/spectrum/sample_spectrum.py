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

Against simulation the expected log eigenvalues agree to about 1/n and the variances to some per
cent, from isolated leading eigenvalues to n < width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.errors import DataError
from polycode_plugins.metrics.spectrum.correlated_rows import (
    INDEPENDENT,
    RowCorrelation,
    kernel,
    solve,
)

Array = NDArray[np.float64]

MAX_OUTER = 200
MAX_INNER = 100
COUNT_TOLERANCE = 1e-7  # in ranks
CHUNK = 2_000_000  # elements of a [nodes, width] work array


@dataclass(frozen=True)
class SampleSpectrum:
    """Sample eigenvalues at some ranks, and how they respond and vary.

    values: [nodes] median eigenvalue of each rank, in the population's unit.
    response: [nodes, width] d log(value) / d log(population eigenvalue); rows sum to 1.
    points: [nodes] complex, the point w of the curve.
    log_spacing: [nodes] -d log(value) / d rank.
    speed: [nodes] |dw / d rank|.
    kernel: [nodes, nodes] what correlated rows add to that of `covariance`; None for none.
    """

    values: Array
    response: Array
    points: NDArray[np.complex128]
    log_spacing: Array
    speed: Array
    kernel: Array | None = None

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
        own = self.response.max(axis=1)
        np.fill_diagonal(cov, (1 - own) * dense + own * alone)
        if self.kernel is not None:
            cov = cov + self.kernel
        return np.asarray(cov / np.pi**2 * np.outer(self.log_spacing, self.log_spacing))


def sample_spectrum(
    population: Array,
    dof: float,
    ranks: NDArray[np.int64],
    start: NDArray[np.complex128] | None = None,
    rows: RowCorrelation = INDEPENDENT,
) -> SampleSpectrum:
    """The sample eigenvalues that a population spectrum leads one to expect.

    population: [width] positive eigenvalues, in any order.
    dof: degrees of freedom n of the sample covariance: samples - 1 after centring.
    ranks: [nodes] integer ranks from 1 (the largest eigenvalue) to min(width, n).
    start: [nodes] points of an earlier call for a similar population, to save time.
    rows: how the samples are correlated; ranks then end at dof / rows.square.

    Raises DataError where the fixed point is not found.
    """
    if rows.repeated:
        dof /= rows.square
    elif not rows.independent:
        return _correlated(population, dof, ranks, start, rows)
    size = max(1, CHUNK // len(population))
    parts = [
        _solve(population, dof, ranks[i : i + size], None if start is None else start[i : i + size])
        for i in range(0, len(ranks), size)
    ]
    if len(parts) == 1:
        return parts[0]
    fields = ("values", "response", "points", "log_spacing", "speed")
    return SampleSpectrum(*(np.concatenate([getattr(p, f) for p in parts]) for f in fields))


def _correlated(
    population: Array,
    dof: float,
    ranks: NDArray[np.int64],
    start: NDArray[np.complex128] | None,
    rows: RowCorrelation,
) -> SampleSpectrum:
    """The sample spectrum for correlated rows: from the points of a similar one, or step by step
    from those for independent rows."""
    form = rows.form()
    found = None if start is None else solve(population, dof, ranks, start, form)
    if found is None:
        points = sample_spectrum(population, dof, ranks).points
        share, step = 0.0, 0.25
        while share < 1 and step > 1e-3:
            nearer = min(1.0, share + step)
            tried = solve(population, dof, ranks, points, rows.share(nearer).form())
            if tried is None:
                step /= 2
            else:
                share, points, found = nearer, tried.w, tried
        if share < 1 or found is None:
            raise _not_found(int(ranks[-1]), dof, len(population))
    weights = population / np.abs(found.w[:, None] - population) ** 2
    density = dof * np.abs(found.g.imag) / (np.pi * found.z.real)
    return SampleSpectrum(
        found.z.real,
        weights / weights.sum(axis=1, keepdims=True),
        found.w,
        1 / (density * found.z.real),
        np.abs(1 / (density * found.slope)),
        kernel(found, population, dof, form),
    )


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
    start: NDArray[np.complex128] | None,
) -> SampleSpectrum:
    """Find the point of the curve with rank - 1/2 sample eigenvalues above it, for every rank.

    The count falls as a = Re w grows, so each rank keeps a bracket; Newton's step is taken where it
    stays inside and a bisection where it does not.
    """
    weight = population**2 / dof
    reach = np.sqrt(weight.sum())
    target = ranks - 0.5
    low = np.full(len(ranks), -reach if dof < len(population) else population.min() * 1e-9)
    high = np.full(len(ranks), population.max() + reach)
    if start is None:
        a = np.sort(population)[::-1][ranks - 1]
        s = a * a / dof
    else:
        a, s = start.real.copy(), start.imag**2
    out = SampleSpectrum(
        np.empty(len(ranks)),
        np.empty((len(ranks), len(population))),
        np.empty(len(ranks), dtype=complex),
        np.empty(len(ranks)),
        np.empty(len(ranks)),
    )
    todo = np.arange(len(ranks))
    for _ in range(MAX_OUTER):
        s[todo] = _height(a[todo], population, weight, s[todo])
        re, im = a[todo], np.sqrt(s[todo])
        w = re + 1j * im
        apart = re[:, None] - population
        q = 1 / (apart**2 + s[todo][:, None])
        inverse = apart * q  # 1 / (w - tau) = inverse - i im q
        z = w * (1 + (inverse @ population - 1j * im * (q @ population)) / dof)
        dz_dw = 1 + 2j * im * ((inverse * q) @ weight)
        dz_dw -= (inverse**2) @ weight - s[todo] * ((q * q) @ weight)
        size2, angle = np.abs(w) ** 2, np.angle(w)
        above = (np.pi / 2 - np.arctan(apart / im[:, None])).sum(axis=1) - len(population) * angle
        above += dof * (angle - z.real * im / size2)
        missing = target[todo] - above / np.pi
        density = dof * im / (np.pi * size2)  # ranks per unit of z
        low[todo] = np.where(missing < 0, re, low[todo])
        high[todo] = np.where(missing < 0, high[todo], re)

        found = np.abs(missing) < COUNT_TOLERANCE
        done = todo[found]
        x = z.real - missing / density
        out.values[done] = x[found]
        out.points[done] = w[found]
        out.log_spacing[done] = (1 / (density * x))[found]
        out.speed[done] = np.abs(1 / (density * dz_dw))[found]
        kernel = population * q[found]
        out.response[done] = kernel / kernel.sum(axis=1, keepdims=True)
        todo = todo[~found]
        if len(todo) == 0:
            return out

        lo, hi = low[todo], high[todo]
        step = a[todo] - (missing / density * (1 / dz_dw).real)[~found]
        flat = s[todo] <= 1e-19 * a[todo] ** 2
        middle = np.where((lo > 0) & (hi > 4 * lo), np.sqrt(np.abs(lo * hi)), (lo + hi) / 2)
        a[todo] = np.where((step > lo) & (step < hi) & ~flat, step, middle)
        s[todo] = np.maximum(s[todo], 1e-8 * a[todo] ** 2 / dof)
    raise _not_found(int(ranks[todo[0]]), dof, len(population))


def _not_found(rank: int, dof: float, width: int) -> DataError:
    return DataError(
        f"the expected sample spectrum was not found at rank {rank} (n = {dof:g}, width {width}); "
        'narrow `ranks`, or use a fit that needs no correction, such as fit="stringer"'
    )
