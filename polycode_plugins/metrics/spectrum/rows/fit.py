"""The correlation of rows that has the moments measured in groups of documents.

Gauss-Newton steps (Levenberg & Marquardt) over the parameters of `correlation`. What the groups
cannot tell is held by weak assumptions: that neighbouring ranks are correlated alike, and that
nothing is common or repeated unless it shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from polycode_plugins.metrics.spectrum.rows.correlation import (
    HIGHEST_LAG,
    LOWEST_LAG,
    MOST_COMMON,
    Array,
    RowCorrelation,
)

if TYPE_CHECKING:
    from polycode_plugins.metrics.spectrum.rows.dependence import Moments

STEPS = 40
PLACES, SHARES = (v / 2 for v in np.polynomial.legendre.leggauss(8))
PLACES = PLACES + 0.5
SETTLED = 1e-5
LEVEL = 0.25  # of the logarithm of a document's length
KNOTS = 12
EVEN = (0.15, 0.5)  # change per unit of log rank, as of a random walk: the likeliest is taken
RARE = {"common": 0.03, "copies": 0.1}  # beyond which they are taken to be there, however large
SUM_ERROR = 0.15  # by which sums over a document are off an autoregression's
SMALL_LAG = 0.3
LIKELY = 0.02  # weight of a minimum beside the others below which it is left out
DOUBTS = 14
FELT = 0.02  # of the strongest doubt; those weaker are left out
END = {"lag": 0.2, "common": 0.1}  # by which the last ranks may be off: nothing sees them alone


class _Model:
    """Moments, as functions of parameters [.., 2 knots + 2]: (lag.., common.., log copies, log
    length)."""

    def __init__(self, found: Moments, places: tuple[Array, Array] | None, length: float) -> None:
        self.found = found
        self.length = float(np.log(length))
        self.lag_within = self.common_within = EVEN[0]
        if places is None:
            self.knots, self.hat, held = np.ones(1), np.ones((1, 1)), np.ones((1, 1))
        else:
            grid, held = places
            self.knots = _knots(grid, held)
            at = np.log(grid)
            self.hat = np.stack(
                [np.interp(at, np.log(self.knots), row) for row in np.eye(len(self.knots))], axis=1
            )
        self.gaps = np.sqrt(np.diff(np.log(self.knots)))
        self.held = held  # [blocks, grid]
        self.even = held.mean(axis=0)
        self.first, self.second = np.triu_indices(len(held))
        self.scale = found.errors.copy()
        pairs = len(self.first)
        blocks = len(held)
        self.scale[pairs : pairs + blocks] = np.hypot(
            self.scale[pairs : pairs + blocks], SUM_ERROR * found.values[pairs : pairs + blocks]
        )
        count = len(self.knots)
        self.low = np.concatenate([np.full(count, LOWEST_LAG), np.zeros(count + 2)])
        self.high = np.concatenate(
            [np.full(count, HIGHEST_LAG), np.full(count, MOST_COMMON), [5.0, 12.0]]
        )

    def moments(self, theta: Array) -> Array:
        """[sets, values] expected to be measured, with parameters [sets, ..]."""
        count = len(self.knots)
        lag = theta[:, :count] @ self.hat.T
        common = theta[:, count : 2 * count] @ self.hat.T
        copies, length = np.exp(theta[:, -2:, None]).swapaxes(0, 1)  # [sets, 1] each
        # Frequencies below 1 / length, where what is common shows, and those above.
        cuts = np.stack([np.zeros_like(length), 1 / length], axis=2)[:, 0]
        steps = np.geomspace(1.0, np.maximum(length[:, 0], 1.0 + 1e-9), 5).T[:, 1:]
        cuts = np.concatenate([cuts, steps / length], axis=1)  # [sets, 6] edges
        sizes = np.diff(cuts)
        place = (cuts[:, :-1, None] + sizes[:, :, None] * PLACES).reshape(len(theta), -1)
        weights = (sizes[:, :, None] * SHARES).reshape(len(theta), -1)
        one = lag[:, :, None]
        regressed = (1 - one**2) / (1 + one**2 - 2 * one * np.cos(np.pi * place[:, None]))
        regressed /= np.einsum("pgq,pq->pg", regressed, weights)[:, :, None]
        shared = length[:, :, None] * (place < 1 / length)[:, None]
        density = (1 - common[:, :, None]) * regressed + common[:, :, None] * shared
        # [sets, blocks, frequencies], as a multiple of that of rows that are not repeated
        mixed = np.einsum("bg,pgq->pbq", self.held, density)
        even = np.einsum("g,pgq->pq", self.even, density)
        pair = np.einsum("pbq,pcq,pq->pbc", mixed, mixed, weights)
        three = np.einsum("pq,pq->p", even**3, weights)
        # An autoregression's sum over a document that ends.
        rows, some = length, np.clip(lag, 0.0, 0.98)
        tail = 2 * some * (1 - some**rows) / (rows * (1 - some) ** 2)
        sums = (1 - common) * np.maximum((1 + some) / (1 - some) - tail, 0.0) + common * rows
        sums = sums @ self.held.T * copies
        pair, three = pair * copies[:, :, None], three * copies[:, 0] ** 2
        return np.asarray(
            np.concatenate([pair[:, self.first, self.second], sums, three[:, None]], axis=1)
        )

    def residuals(self, theta: Array) -> Array:
        """[sets, residuals] in standard errors: of the moments, then of what is assumed."""

        def rare(values: Array, scale: float) -> Array:
            """Square roots of a Cauchy distribution's -2 log likelihood."""
            return np.asarray(np.sign(values) * np.sqrt(np.log1p((values / scale) ** 2)))

        count = len(self.knots)
        lag, common = theta[:, :count], theta[:, count : 2 * count]
        return np.concatenate(
            [
                (self.moments(theta) - self.found.values) / self.scale,
                np.diff(lag) / self.gaps / self.lag_within,
                np.diff(common) / self.gaps / self.common_within,
                lag.mean(axis=1, keepdims=True),
                rare(common.mean(axis=1, keepdims=True), RARE["common"]),
                rare(theta[:, -2:-1], RARE["copies"]),
                (theta[:, -1:] - self.length) / LEVEL,
            ],
            axis=1,
        )

    def slope(self, theta: Array) -> tuple[Array, Array]:
        """Residuals and their derivatives [residuals, parameters]."""
        step = np.where(theta + 1e-4 < self.high, 1e-4, -1e-4)
        found = self.residuals(np.vstack([theta, theta + np.diag(step)]))
        return found[0], (found[1:] - found[0]).T / step

    def described(self, theta: Array) -> RowCorrelation:
        """The correlation with these parameters."""
        count = len(self.knots)
        return RowCorrelation(
            knots=tuple(self.knots.tolist()),
            lag=tuple(theta[:count].tolist()),
            common=tuple(theta[count : 2 * count].tolist()),
            copies=float(np.exp(theta[-2])),
            length=float(np.exp(theta[-1])),
        )

    def search(self, theta: Array) -> tuple[float, Array]:
        """The least sum of squares from here, and where it is."""
        damping, value = 1e-2, np.inf
        residual, slope = self.slope(theta)
        value = float(residual @ residual)
        for _ in range(STEPS):
            square, pull = slope.T @ slope, slope.T @ residual
            # A parameter at its bound stays there while it is pulled beyond it.
            free = ~((theta <= self.low) & (pull > 0) | (theta >= self.high) & (pull < 0))
            step = np.zeros(len(theta))
            inner = square[np.ix_(free, free)]
            inner = inner + damping * np.diag(inner.diagonal() + 1e-9)
            step[free] = -np.linalg.solve(inner, pull[free])
            tried = np.clip(theta + step, self.low, self.high)
            other = self.residuals(tried[None])[0]
            if (less := float(other @ other)) < value:
                gained = value - less
                theta, value, damping = tried, less, damping / 5
                if gained < SETTLED * (1 + value):
                    break
                residual, slope = self.slope(theta)
            else:
                damping *= 5
                if damping > 1e6:
                    break
        return value, theta


@dataclass(frozen=True)
class _Mode:
    """A description that explains the moments, and how badly: -2 log evidence, by Laplace's
    approximation. within: how even it was taken to be."""

    theta: Array
    within: tuple[float, float]
    evidence: float


def _modes(model: _Model, found: Moments) -> list[_Mode]:
    """The minima from several beginnings, each with several assumptions of how even they are."""
    count = len(model.knots)
    square = max(found.square, 1.02)
    lag = np.full(count, float(np.sqrt((square - 1) / (square + 1))))
    share = min(0.9, float(np.sqrt((square - 1) / max(np.exp(model.length) - 1, 1.0))))
    common = np.full(count, share)
    starts = [
        np.concatenate([lag / 2, common / 2, [0.1, model.length]]),
        np.concatenate([lag, common / 20, [0.01, model.length]]),
        np.concatenate([lag / 20, common, [0.01, model.length]]),
    ]
    if found.cube < 1.5 * square**2:
        starts.append(np.concatenate([lag * 0, common * 0, [np.log(square), model.length]]))
    modes = []
    for start in starts:
        model.lag_within, model.common_within = EVEN[-1], EVEN[-1]
        _, begin = model.search(start)
        for within in product(EVEN[::-1], EVEN):
            model.lag_within, model.common_within = within
            value, theta = model.search(begin)
            # A large lag that is taken to be very even hides where it bends.
            if within[0] < EVEN[-1] and theta[:count].mean() > SMALL_LAG:
                continue
            _, slope = model.slope(theta)
            value += float(np.linalg.slogdet(slope.T @ slope)[1])
            value += 2 * (count - 1) * float(np.log(within[0] * within[1]))
            modes.append(_Mode(theta, within, value))
            if count == 1:
                break
    return modes


def _errors(model: _Model, mode: _Mode, found: Moments) -> Array:
    """Covariance of the parameters of a minimum."""
    model.lag_within, model.common_within = mode.within
    _, slope = model.slope(mode.theta)
    values = len(found.values)
    noise = found.covariance
    noise[np.diag_indices(values)] = np.maximum(noise.diagonal(), found.chance**2)
    inner = np.linalg.inv(slope.T @ slope)
    gain = inner @ (slope[:values] / model.scale[:, None]).T
    prior = slope[values:]
    return np.asarray(gain @ noise @ gain.T + inner @ prior.T @ prior @ inner)


def fitted(found: Moments, places: tuple[Array, Array] | None, length: float) -> RowCorrelation:
    """The correlation whose moments these are, with what is doubtful of it.

    An autoregression and what is common to documents have nearly the same moments, so that there
    are several minima: the likeliest is the description, and the others, by their weight, are part
    of the doubt.

    places: [grid] ranks and [blocks, grid] weights of the blocks there. length: of documents,
    roughly.
    """
    model = _Model(found, places, length)
    modes = _modes(model, found)
    best = min(modes, key=lambda mode: mode.evidence)
    theta, count = best.theta, len(model.knots)
    weights = np.exp((best.evidence - np.array([mode.evidence for mode in modes])) / 2)
    covariance = np.zeros((len(theta), len(theta)))
    for mode, weight in zip(modes, weights / weights.sum(), strict=True):
        if weight > LIKELY:
            away = mode.theta - theta
            covariance += weight * (_errors(model, mode, found) + np.outer(away, away))
    described = model.described(theta)
    # What each doubt does to the squares, at all knots, says how much it matters: the moments do
    # not feel what is blurred in them.
    small = 1e-3
    felt = np.stack([_squares(described.moved(small * row)) for row in np.eye(len(theta))], axis=1)
    felt = (felt - _squares(described)[:, None]) / small
    root = np.linalg.cholesky(covariance + 1e-14 * np.eye(len(covariance)))
    _, sizes, axes = np.linalg.svd(felt @ root, full_matrices=False)
    kept = [k for k in range(min(DOUBTS, len(sizes))) if sizes[k] > FELT * sizes[0]]
    shifts = [root @ axes[k] for k in kept]
    if count > 1:
        # The last ranks are seen blurred with all before them.
        seen = (model.held @ model.hat[:, -1]).max()
        for at, size in ((count - 1, END["lag"]), (2 * count - 1, END["common"])):
            shifts.append(size * (1 - seen) * np.eye(len(theta))[at])
    return replace(described, doubts=tuple(tuple(shift.tolist()) for shift in shifts))


def _squares(rows: RowCorrelation) -> Array:
    """Log of tr R_j^2 / n at the knots."""
    found, weights = rows.density(np.asarray(rows.knots))
    return np.asarray(np.log(found**2 @ weights))


def _knots(grid: Array, held: Array) -> Array:
    """Ranks where the correlation is free: half of them evenly over log rank, half where the blocks
    look."""
    weight = np.cumsum(held.mean(axis=0))
    if len(held) == 1:
        return np.asarray(np.exp(np.interp([weight[-1] / 2], weight, np.log(grid))))
    at = np.linspace(0.0, 1.0, KNOTS)
    seen = np.interp(at * weight[-1], weight, np.log(grid))
    even = np.log(grid[0]) + at * np.log(grid[-1] / grid[0])
    seen[0], seen[-1] = even[0], even[-1]
    found = np.exp((seen + even) / 2) * (1 + 1e-6 * np.arange(KNOTS))
    return np.asarray(np.maximum.accumulate(found))
