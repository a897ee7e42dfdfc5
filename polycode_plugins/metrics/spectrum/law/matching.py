"""Find the population spectrum whose expected sample spectrum matches the one observed.

The logarithms of the observed eigenvalues are averaged over bins of consecutive ranks, evenly
spaced in log rank, and compared with what `sample_spectrum` expects of a population power law.
Gauss-Newton steps, weighted by the expected variance of each bin, do the rest, without simulation.

The eigenvalues beyond the last rank of the fit leak into it when n is not far above the width, and
they need not follow the same law. Their observed sum is one more observation and their own exponent
one more parameter, so that they are measured and not assumed. Where none was observed (n below the
last rank) the law is continued to the width, which is an assumption. What lies far off the law
outside the ranks, such as a few huge leading eigenvalues, is taken into the population as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polycode_plugins.metrics.spectrum.law.bins import HEAD, Binned, expect
from polycode_plugins.metrics.spectrum.law.levels import Array, Levels, levels
from polycode_plugins.metrics.spectrum.law.start import Start
from polycode_plugins.metrics.spectrum.rows.correlation import INDEPENDENT, RowCorrelation

STEPS = 40
NOISE_STEP = 0.1  # of level or exponent, after which it is worked out anew
FULL_STEPS = 8  # after which each is held shorter than the one before, so that none can swing
STEEPEST_TAIL = 30.0
SPAN = 60.0  # most a law may fall over its ranks, in log eigenvalue: twice what float64 resolves
FLATTEST = 0.02
FLAT = 0.3  # below it the spectrum depends on the square of the exponent
REACH = 80.0  # log eigenvalue from the first rank's beyond which all is the same: zero, or huge
SETTLED = 1e-3  # a last step of this size leaves an error of its square; so does 1/20 s.e.
FAR_OFF = 0.5  # in log eigenvalue, for ranks outside the fit
SHARE = 0.01  # of the tail's sum, below which a cell of it is not looked at
OUTER_ROUNDS = 4
LEAST = 0.1  # eigenvalue of a correlation that is drawn towards 0


@dataclass(frozen=True)
class Matched:
    """A population found by `match`.

    parameters: [p] log level at the middle of the ranks, exponent, and that of the tail if any.
    squared: the exponent's square before it was held to be positive: it is what a spectrum close
        to flat depends on. covariance: [p, p] of the parameters, for Gaussian rows.
    settled: False where only ever shorter steps ended the search: no power law is near.
    fitted: [rows] expected values; residuals: [rows] observed - fitted.
    whitened: [rows, p] columns of the linear model in units in which the noise is white.
    whitener: [rows, rows] what takes residuals to those units.
    response: [rows, width] d fitted / d log population.
    offset: [width] log population less that of the law.
    start: for a search with another correlation of the rows.
    """

    parameters: Array
    squared: float
    covariance: Array
    settled: bool
    fitted: Array
    residuals: Array
    whitened: Array
    whitener: Array
    response: Array
    offset: Array
    start: Start

    @property
    def freedom(self) -> int:
        """Rows less parameters."""
        return int(self.whitened.shape[0] - self.whitened.shape[1])

    @property
    def dispersion(self) -> float:
        """Residual variance in units of the expected one; about 1 if model and noise are right."""
        white = self.whitener @ self.residuals
        basis = np.linalg.qr(self.whitened)[0]
        return float(np.sum((white - basis @ (basis.T @ white)) ** 2) / self.freedom)


def positive(noise: Array) -> Array:
    """The covariance `noise`, its correlations drawn towards 0 where they cannot all be true.

    It is an approximation, good where levels lie dense: beside levels that stand alone neighbouring
    bins come out as correlated as no random numbers are (eigenvalues of the correlation of -0.09
    were seen). Variances stay as they are, and a matrix that is positive definite stays whole.
    """
    try:
        np.linalg.cholesky(noise)
    except np.linalg.LinAlgError:
        deviations = np.sqrt(noise.diagonal())
        correlation = noise / np.outer(deviations, deviations)
        lowest = float(np.linalg.eigvalsh(correlation)[0])
        share = (1 - LEAST) / (1 - lowest)
        drawn = share * correlation + (1 - share) * np.eye(len(noise))
        return np.asarray(drawn * np.outer(deviations, deviations))
    return noise


def match(
    data: Binned,
    width: int,
    dof: float,
    start: float,
    correlation: RowCorrelation = INDEPENDENT,
    near: Matched | None = None,
    line: Array | None = None,
    begin: Start | None = None,
) -> Matched:
    """Find the population power law that matches the sample.

    width: eigenvalues of the population. dof: samples - 1. start: exponent to begin with.
    correlation: of the samples. near: a match of the same ranks with another correlation, whose
    eigenvalues outside the ranks are kept. line: [width] log population as far as it is known, to
    begin with. begin: the points of a similar sample spectrum.
    """
    rank = np.log(np.arange(1, width + 1))
    end = np.log(data.last) if data.tail else np.inf
    # Level and exponent are told apart best at the middle of the ranks.
    middle = rank[data.first - 1 : data.last].mean()
    columns = [np.ones(width), middle - np.minimum(rank, end)]
    if data.tail:
        columns.append(-np.maximum(rank - end, 0))
    basis = np.stack(columns, axis=1)
    start = float(np.clip(start, FLATTEST, SPAN / np.log(data.last / data.first)))
    level = float(np.average(data.values[: len(data.sizes)], weights=data.sizes))
    theta = np.array([level, start, min(start, STEEPEST_TAIL)])[: len(columns)]
    offset = np.zeros(width)
    far = max(FAR_OFF, 5 * np.sqrt(2 * correlation.squares(width).max() / dof))
    inside = (data.rows != HEAD) & (data.rows < len(data.sizes))
    tail_cells = np.flatnonzero(data.rows == len(data.sizes))
    cells = data.begins[~inside]
    if near is not None and len(near.parameters) == len(theta):
        offset, theta = near.offset, near.parameters
    elif line is not None:
        theta, offset = _begin(data, basis, line, theta, far)
    grouped = levels(basis @ theta + offset, dof, np.append(cells, data.last + 1))
    begin = begin if near is None else near.start
    for attempt in range(OUTER_ROUNDS):
        found, logs = _search(data, basis, offset, theta, dof, correlation, grouped, begin)
        begin = found.start
        if near is not None:
            break
        theta = found.parameters
        off = np.where(inside, 0.0, data.logs - logs)
        if len(tail_cells) > 1:
            # The last eigenvalues can be arbitrarily close to zero: they go with those before.
            off[tail_cells[-1]] = off[tail_cells[-2]]
        if attempt and data.tail:
            # Once lowered, a cell that adds next to nothing to the tail is of no consequence.
            sums = data.cells * np.abs(np.exp(data.logs) - np.exp(logs))
            off[tail_cells[sums[tail_cells] < SHARE * np.exp(data.values[-1])]] = 0.0
        if np.abs(off).max() < far:
            break
        before = offset.copy()
        for k in np.flatnonzero(np.abs(off) >= far):
            offset[data.begins[k] - 1 :][: int(data.cells[k])] += off[k]
        # The population, too, decreases.
        law = basis @ theta
        head, tail = slice(0, data.first - 1), slice(data.last, None)
        offset[head] = np.maximum(offset[head], law[data.first - 1] - law[head])
        offset[tail] = np.minimum(offset[tail], law[data.last - 1] - law[tail])
        if np.abs(offset - before).max() < far:
            break
    return found


def _begin(
    data: Binned, basis: Array, line: Array, theta: Array, far: float
) -> tuple[Array, Array]:
    """The law nearest to a population [width], and what of it lies far off outside the ranks."""
    theta, offset = theta.copy(), np.zeros(len(line))
    sums = np.concatenate([np.zeros((1, 3)), np.cumsum(np.column_stack([basis[:, :2], line]), 0)])
    rows = np.diff(sums[data.edges - 1], axis=0) / data.sizes[:, None]
    # Bins of one noise each, nearly.
    theta[:2] = np.linalg.lstsq(rows[:, :2], rows[:, 2], rcond=None)[0]
    theta[1] = np.clip(theta[1], FLATTEST, SPAN / np.log(data.last / data.first))
    if data.tail:
        beyond = slice(data.last, int((data.begins + data.cells).max()) - 1)
        left = line[beyond] - basis[beyond, :2] @ theta[:2]
        along = basis[beyond, 2]
        theta[2] = np.clip(float(along @ left / (along @ along)), 0.0, STEEPEST_TAIL)
    off = line - basis @ theta
    for begin, count in zip(data.begins, data.cells.astype(np.int64), strict=True):
        if begin < data.first or begin > data.last:
            mean = float(off[begin - 1 : begin - 1 + count].mean())
            if abs(mean) >= far:
                offset[begin - 1 : begin - 1 + count] = mean
    return theta, offset


def _search(
    data: Binned,
    basis: Array,
    offset: Array,
    theta: Array,
    dof: float,
    correlation: RowCorrelation,
    grouped: Levels,
    begin: Start | None,
) -> tuple[Matched, Array]:
    """The match at a given offset from the law, and the expected mean log of every cell."""
    all_noise, noised = None, theta
    moved, relaxed = np.zeros(len(theta)), np.ones(len(theta))
    with_tail = data.tail
    lowest = np.array([FLATTEST, 0.0])[: len(theta) - 1]
    highest = np.array([SPAN / np.log(data.last / data.first), STEEPEST_TAIL])[: len(theta) - 1]
    settled = rested = False
    for attempt in range(STEPS):
        logs = basis @ theta + offset
        unit = logs[data.first - 1]
        population = np.exp(np.clip(logs - unit, -REACH, REACH))
        expected = expect(data, population, dof, begin, correlation, grouped)
        begin = expected.start
        rows = slice(len(data.sizes) + with_tail)
        x = (expected.response @ basis)[rows, : 2 + with_tail]
        # The noise, with doubts of the rows' correlation, changes little from step to step.
        if all_noise is None or np.abs(theta - noised)[:2].max() > NOISE_STEP:
            all_noise, noised = expected.covariance() + expected.doubt(), theta
        gap = (data.values - unit - expected.values)[rows]
        found = _step(x, gap, all_noise[rows, rows], theta)
        step = found.step
        small = [1.0, max(SETTLED * max(1.0, theta[1]), found.error / 20), _small_tail(theta)]
        still = bool(np.all(np.abs(step[:2]) < small[:2]))
        # The tail may swing for long, of no consequence for a law that stands still.
        settled = still and (rested or bool(np.all(np.abs(step) < small[: len(theta)])))
        rested = still
        if settled:
            break
        limit = np.array([2.0, 0.5, 1 + theta[-1] / 2])[: len(theta)]
        limit *= 0.7 ** max(0, attempt - FULL_STEPS)
        # A parameter that swings is held shorter each time.
        swings = step * moved < 0
        relaxed = np.where(swings, relaxed / 2, np.minimum(1.0, relaxed * 2))
        moved = np.clip(relaxed * step, -limit, limit)
        before, theta = theta, theta + moved
        theta[1:] = np.clip(theta[1:], lowest, highest)
        step[:] = 0.0
        if with_tail and theta[2] == before[2]:
            # No decreasing tail has that sum: keep the nearest and leave the sum out.
            with_tail = False
    whitener = np.linalg.inv(np.linalg.cholesky(found.noise))
    change = x @ step[: x.shape[1]]
    matched = Matched(
        parameters=np.append(theta[0] + step[0], np.clip((theta + step)[1:], 0.0, highest)),
        squared=found.squared,
        covariance=found.solve @ found.noise @ found.solve.T,
        settled=settled,
        fitted=data.values[rows] - gap + change,
        residuals=gap - change,
        whitened=whitener @ x,
        whitener=whitener,
        response=expected.response[rows],
        offset=offset,
        start=expected.start,
    )
    return matched, expected.logs + unit + step[0]


@dataclass(frozen=True)
class _Step:
    """One step of the search.

    noise: [rows, rows]. solve: [parameters, rows] from gaps to the step. step: [..].
    squared: see `Matched`. error: standard error of the exponent where the law misfits so.
    """

    noise: Array
    solve: Array
    step: Array
    squared: float
    error: float


def _small_tail(theta: Array) -> float:
    """A step of the tail's exponent that is of no consequence."""
    return 0.05 * (1 + float(theta[-1]))


def _step(x: Array, gap: Array, noise: Array, theta: Array) -> _Step:
    """Weighted least squares of what is missing, gap [rows], over x [rows, parameters]."""
    noise = positive(noise)
    # Bins are weighted by their own variance only: as precise as the full inverse where the
    # model holds, and not led astray by cancelling weights where it does not.
    scaled = x / noise.diagonal()[:, None]
    solve = np.asarray(np.linalg.solve(scaled.T @ x, scaled.T), dtype=np.float64)
    step = np.zeros(len(theta))
    step[: x.shape[1]] = solve @ gap
    squared = float(theta[1] ** 2 + 2 * theta[1] * step[1])
    if theta[1] < FLAT:
        step[1] = np.sqrt(max(squared, FLATTEST**2)) - theta[1]
    misfit = max(1.0, float(np.mean(gap**2 / noise.diagonal())))
    error = float(np.sqrt(misfit * (solve[1] @ noise @ solve[1])))
    return _Step(noise, solve, step, squared, error)
