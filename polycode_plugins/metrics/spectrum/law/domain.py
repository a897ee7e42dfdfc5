"""The widest range of ranks over which one power law describes a spectrum.

First the population's spectrum is found as a curve: it is corrected until its expected sample
spectrum (see `sample_spectrum`) is the one observed, in bins of ranks, of which the noise is known.
Then every range of bins is tried. One that describes its bins by a line and leaves the others free
costs

    (residuals, squared, in units of their noise) + PENALTY (bins outside),

and the range of least cost is taken: a change-point search with the criterion of minimum
description length. A law need not be exact: TOLERANCE is added to the noise of every bin.

The choice is made from the same data. So the interval of the exponent comes of choosing anew in
spectra drawn with the noise around the one found (a parametric bootstrap): its spread holds what
the choice adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from polycode_plugins.errors import DataError
from polycode_plugins.metrics.spectrum.law.bins import Binned, binned, expect
from polycode_plugins.metrics.spectrum.law.levels import Array, levels
from polycode_plugins.metrics.spectrum.law.matching import positive
from polycode_plugins.metrics.spectrum.law.start import Start
from polycode_plugins.metrics.spectrum.rows.correlation import RowCorrelation

BINS = 48
ROUNDS = 5
LONGEST = 1.0  # step of a log eigenvalue
ASTRAY = 9.0  # median square [standard errors] of what the last step still had to mend
BEND = 0.3  # variance of the change of slope, per unit of log rank
TOLERANCE = 0.01 * float(np.log(10))  # in log eigenvalue: a hundredth of a decade
PENALTY = 5.0
DRAWS = 200
WIDER = 1.3  # what the curve's own reweighting adds to the spread of the draws, by simulation
LEAST_BINS = 5
LEAST_DECADES = 0.3
ROUNDING = 1e-12  # of the largest eigenvalue of a covariance: below it the inverse is none
TREND = 0.4  # of the bins, the last of which say how the spectrum goes on where none is seen


@dataclass(frozen=True)
class Domain:
    """Where one power law describes a spectrum.

    Attributes:
        first, last: ranks, from 1.
        exponent: of lambda_i ~ i^-exponent there, of the population.
        interval: its 95% interval (low, high); that the range was chosen is part of it.
        first_interval, last_interval: 95% intervals of the ends.
        decades: log10(last / first).
        share: of the total variance of the sample.
    """

    first: int
    last: int
    exponent: float
    interval: tuple[float, float]
    first_interval: tuple[int, int]
    last_interval: tuple[int, int]
    decades: float
    share: float

    @property
    def sentence(self) -> str:
        """As in "one law over ranks 3 to 210, 1.8 decades, 41% of the variance"."""
        return (
            f"one law over ranks {self.first} to {self.last}, {self.decades:.1f} decades, "
            f"{self.share:.0%} of the variance"
        )


@dataclass(frozen=True, eq=False)
class Curve:
    """A population's spectrum in bins.

    data: the bins. logs: [bins] log eigenvalue. covariance: [bins, bins]. ranks: [bins] log of the
    middle rank. line: [width] log eigenvalue of every rank. start: for a similar population.
    """

    data: Binned
    logs: Array
    covariance: Array
    ranks: Array
    line: Array
    start: Start | None = None

    def slope(self, first: int, last: int) -> float | None:
        """Of a line over these ranks, with the noise as weights; None for fewer than 3 bins."""
        inside = (self.data.edges[:-1] >= first) & (self.data.edges[1:] <= last + 1)
        if inside.sum() < 3:
            return None
        noise = self.covariance[np.ix_(inside, inside)] + TOLERANCE**2 * np.eye(inside.sum())
        columns = np.stack([np.ones(inside.sum()), self.ranks[inside]], axis=1)
        pull = np.linalg.solve(noise, columns).T
        return float(np.linalg.solve(pull @ columns, pull @ self.logs[inside])[1])

    def deviation(self, first: int, last: int) -> float:
        """Root mean square [decades] by which the curve is off a line over these ranks, over log
        rank; what noise adds is taken off."""
        inside = (self.data.edges[1:] > first) & (self.data.edges[:-1] <= last)
        if inside.sum() < 3:
            return 0.0
        weights = np.diff(np.log(self.data.edges - 0.5))[inside]
        columns = np.stack([np.ones(inside.sum()), self.ranks[inside]], axis=1)
        root = np.sqrt(weights)[:, None]
        basis = np.linalg.qr(columns * root)[0]
        left = np.eye(len(weights)) - basis @ basis.T
        off = left @ (self.logs[inside] * root[:, 0])
        noise = np.trace(left @ (self.covariance[np.ix_(inside, inside)] * (root @ root.T)))
        square = max(0.0, float(off @ off - noise)) / weights.sum()
        return float(np.sqrt(square) / np.log(10))


def curve(values: Array, usable: int, dof: float, width: int, rows: RowCorrelation) -> Curve:
    """The population's spectrum, from that of a sample.

    values: [k] sample eigenvalues, descending, of which `usable` are more than rounding.

    Raises DataError where the expected sample spectrum is not found.
    """
    data = binned(values, 1, usable, usable, bins=BINS, cells=2)
    count = len(data.sizes)
    sums = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, width + 1)))])
    at = (sums[data.edges[1:] - 1] - sums[data.edges[:-1] - 1]) / data.sizes
    order = np.log(np.arange(1.0, width + 1))
    own = np.minimum(np.searchsorted(data.edges, np.arange(1, width + 1), "right"), count) - 1
    some = max(3, int(TREND * count))
    noise: Array = np.empty((0, 0))
    weights: Array = np.empty((0, 0))
    missing: Array = np.empty(0)
    # Slopes between bins walk at random: what is assumed where the sample cannot tell.
    gaps = np.diff(at)
    slope = (np.eye(count)[1:] - np.eye(count)[:-1]) / gaps[:, None]
    bend = (slope[1:] - slope[:-1]) / np.sqrt(BEND * (gaps[1:] + gaps[:-1]) / 2)[:, None]
    logs, start, grouped = data.values.copy(), None, None
    for _ in range(ROUNDS):
        # In a bin the logarithm is linear in log rank, with the smaller of the slopes to its
        # neighbours: a jump stays one. Beyond the last it goes on as before.
        falls = slope @ logs
        left, right = np.append(falls[0], falls), np.append(falls, falls[-1])
        chosen = np.where(np.abs(right) <= np.abs(left), np.arange(count), np.arange(count) - 1)
        chosen = np.clip(chosen, 0, count - 2)
        beyond = order > np.log(data.last + 0.5)
        along = np.where(beyond, 0.0, order - at[own])
        hat = np.eye(count)[own] + along[:, None] * slope[chosen[own]]
        trend = min(0.0, float(np.polyfit(at[-some:], logs[-some:], 1)[0]))
        line = hat @ logs + np.where(beyond, trend * (order - at[-1]), 0.0)
        line = np.minimum.accumulate(line)
        unit = line[0]
        population = np.exp(line - unit)
        if grouped is None:
            grouped = levels(line, dof, data.edges)
        found = expect(data, population, dof, start, rows, grouped)
        start = found.start
        if not noise.size:
            noise = positive(np.asarray(found.covariance() + found.doubt(), dtype=np.float64))
            weights = np.asarray(np.linalg.inv(noise), dtype=np.float64)
        answer = found.response @ hat
        pull = answer.T @ weights
        # A kink or jump that shows once is let be: weights of a Cauchy distribution.
        held = 2 / (1 + (bend @ logs) ** 2)
        covariance = np.linalg.inv(pull @ answer + bend.T @ (held[:, None] * bend))
        missing = data.values - unit - found.values
        wanted = covariance @ (pull @ (missing + answer @ logs))
        logs = logs + np.clip(wanted - logs, -LONGEST, LONGEST)
    if np.median(missing**2 / noise.diagonal()) > ASTRAY:
        raise DataError("the population's spectrum was not found as a curve")
    covariance = (covariance + covariance.T) / 2
    spread = np.linalg.eigvalsh(covariance)
    if spread[0] <= ROUNDING * spread[-1]:  # of a dozen samples, whose noise is hardly known
        raise DataError("the noise of the population's spectrum was not found")
    line = hat @ logs + np.where(beyond, trend * (order - at[-1]), 0.0)
    return Curve(data, logs, covariance, at, np.minimum.accumulate(line), found.start)


def domain(found: Curve, values: Array, seed: int) -> Domain | None:
    """The widest range over which one law describes the curve; None where none spans 0.3 decades.

    values: [k] all sample eigenvalues, for shares of the variance.
    """
    if len(found.logs) < LEAST_BINS + 2:
        return None
    choice = _Choice(found)
    begin, end, slope, level = (part[0] for part in choice.best(found.logs[:, None]))
    edges = found.data.edges
    if end - begin < LEAST_BINS:
        return None
    first, last = int(edges[begin]), int(edges[end]) - 1
    decades = float(np.log10(last / first))
    if decades < LEAST_DECADES:
        return None
    law = found.logs.copy()
    law[begin:end] = level + slope * found.ranks[begin:end]
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(
        found.covariance + 1e-12 * np.trace(found.covariance) * np.eye(len(law))
    )
    drawn = law[:, None] + root @ rng.standard_normal((len(law), DRAWS))
    begins, ends, slopes, _ = choice.best(drawn)
    low, high = WIDER * np.quantile(slopes - slope, [0.025, 0.975])
    exponent = -float(slope)
    return Domain(
        first=first,
        last=last,
        exponent=exponent,
        interval=(min(exponent, exponent + float(low)), max(exponent, exponent + float(high))),
        first_interval=_ends(edges[begins]),
        last_interval=_ends(edges[ends] - 1),
        decades=decades,
        share=float(values[first - 1 : last].sum() / values.sum()),
    )


def _ends(ranks: Array) -> tuple[int, int]:
    low, high = np.quantile(ranks, [0.025, 0.975], method="nearest")
    return int(low), int(high)


class _Choice:
    """Ranges of bins and the lines over them, for many curves with the same noise at once."""

    def __init__(self, found: Curve) -> None:
        count = len(found.logs)
        noise = found.covariance + TOLERANCE**2 * np.eye(count)
        self.count, self.ranks = count, found.ranks
        # Whitened from the first bin on, any number of the following are whitened too.
        self.whiteners = [
            np.linalg.inv(np.linalg.cholesky(noise[begin:, begin:]))
            for begin in range(count - LEAST_BINS + 2)
        ]

    def best(self, curves: Array) -> tuple[Any, Any, Array, Array]:
        """First bin, the bin after the last, slope and level of the range of least cost.

        Slope and level are those without the outermost bins, unless the spectrum ends there: they
        may be half in what follows.

        curves: [bins, curves]; each returned [curves].
        """
        count, number = self.count, curves.shape[1]
        least = np.full(number, np.inf)
        begins, ends = (np.zeros(number, dtype=np.int64) for _ in range(2))
        lines = np.zeros((2, len(self.whiteners), count + 1, number))
        row = np.arange(number)
        for begin, whitener in enumerate(self.whiteners):
            one, x = (whitener @ v for v in (np.ones(count - begin), self.ranks[begin:]))
            y = whitener @ curves[begin:]
            tail = slice(LEAST_BINS - 3, None)
            oo, ox, xx = (np.cumsum(v)[tail, None] for v in (one * one, one * x, x * x))
            oy, xy = (np.cumsum(v[:, None] * y, axis=0)[tail] for v in (one, x))
            inner = oo * xx - ox**2
            slope = (oo * xy - ox * oy) / inner
            level = (xx * oy - ox * xy) / inner
            lines[:, begin, begin + LEAST_BINS - 2 :] = slope, level
            inside = np.arange(LEAST_BINS - 2, count - begin + 1)[:, None]
            cost = np.cumsum(y * y, axis=0)[tail] - slope * xy - level * oy
            cost += PENALTY * (count - inside)
            cost[:2] = np.inf
            at = cost.argmin(axis=0)
            better = cost[at, row] < least
            least = np.where(better, cost[at, row], least)
            begins = np.where(better, begin, begins)
            ends = np.where(better, begin + LEAST_BINS - 2 + at, ends)
        slopes, levels_ = lines[:, begins + (begins > 0), ends - (ends < count), row]
        return begins, ends, slopes, levels_
