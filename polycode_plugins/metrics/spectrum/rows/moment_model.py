"""What groups of documents should show of rows that are correlated as `correlation` describes.

Moments of the groups (see `dependence`) as functions of the description's parameters, with their
derivatives, for many sets of parameters at once; beside them what is assumed where groups cannot
tell: that neighbouring ranks are correlated alike, and that nothing is common or repeated unless it
shows.
"""

from __future__ import annotations

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

PLACES, SHARES = (v / 2 for v in np.polynomial.legendre.leggauss(5))
PLACES = PLACES + 0.5
LEVEL = 0.25  # of the logarithm of a document's length
KNOTS = 12
RARE = {"common": 0.03, "copies": 0.1}  # beyond which they are taken to be there, however large
SUM_ERROR = 0.15  # by which sums over a document are off an autoregression's
HIGHEST_SUM = 0.98  # lag of an autoregression's sum


class MomentModel:
    """Moments, as functions of parameters [.., 2 knots + 2]: (lag.., common.., log copies, log
    length)."""

    def __init__(self, found: Moments, places: tuple[Array, Array] | None, length: float) -> None:
        self.found = found
        self.length = float(np.log(length))
        if places is None:
            self.knots, self.hat, held = np.ones(1), np.ones((1, 1)), np.ones((1, 1))
        else:
            grid, held = places
            self.knots = knots(grid, held)
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

    def moments(self, theta: Array) -> tuple[Array, Array]:
        """[sets, values] expected to be measured, with parameters [sets, parameters], and their
        derivatives [sets, values, parameters]."""
        count = len(self.knots)
        lag = theta[:, :count] @ self.hat.T
        common = theta[:, count : 2 * count] @ self.hat.T
        copies, length = np.exp(theta[:, -2:]).T[:, :, None]  # [sets, 1] each
        # Frequencies below 1 / length, where what is common shows, and those above.
        longest = np.log(np.maximum(length, 1.0 + 1e-9))
        steps = np.exp(longest * np.linspace(0.0, 1.0, 5))
        cuts = np.concatenate([np.zeros_like(length), steps / length], axis=1)  # [sets, 6] edges
        sizes = np.diff(cuts)
        place = (cuts[:, :-1, None] + sizes[:, :, None] * PLACES).reshape(len(theta), -1)
        weights = (sizes[:, :, None] * SHARES).reshape(len(theta), -1)
        # What is common ends at 1 / length, where the last node is: for derivatives by the length.
        wave = np.cos(np.pi * np.concatenate([place, 1 / length], axis=1))[:, None]
        one = lag[:, :, None]
        below = 1 / (1 + one**2 - 2 * one * wave)
        regressed = (1 - one**2) * below
        bent = -2 * (one + regressed * (one - wave))[:, :, :-1] * below[:, :, :-1]  # by the lag
        regressed, end = regressed[:, :, :-1], regressed[:, :, -1:]
        sums = regressed @ weights[:, :, None]
        regressed, end, bent = regressed / sums, end / sums, bent / sums
        bent -= regressed * (bent @ weights[:, :, None])
        shared = (length * (place < 1 / length))[:, None]
        density = (1 - common)[:, :, None] * regressed + common[:, :, None] * shared
        # [sets, blocks, frequencies], as a multiple of that of rows that are not repeated
        mixed, even = self.held @ density, self.even @ density
        turned = (mixed * weights[:, None]).swapaxes(1, 2)
        pair = (mixed @ turned)[:, self.first, self.second]
        squares = even**2 * weights
        three = np.sum(squares * even, axis=1, keepdims=True)
        total, steeper, longer = _sums(lag, length)
        summed = ((1 - common) * total + common * length) @ self.held.T
        values = np.concatenate([pair * copies, summed * copies, three * copies**2], axis=1)

        slopes = np.empty((*values.shape, 2 * count + 2))
        parts = (
            (slice(count), (1 - common)[:, :, None] * bent, (1 - common) * steeper),
            (slice(count, 2 * count), shared - regressed, length - total),
        )
        pairs = len(self.first)
        for (
            kind,
            moved,
            more,
        ) in parts:  # by the lag and by what is common, of each rank of the grid
            by = (moved @ turned).swapaxes(1, 2)  # [sets, blocks, grid]
            by_pair = self.held[self.first] * by[:, self.second]
            by_pair += self.held[self.second] * by[:, self.first]
            slopes[:, :pairs, kind] = copies[:, :, None] * (by_pair @ self.hat)
            slopes[:, pairs:-1, kind] = copies[:, :, None] * (
                (self.held * more[:, None]) @ self.hat
            )
            by_three = 3 * self.even * (moved @ squares[:, :, None])[:, :, 0]
            slopes[:, -1, kind] = copies**2 * (by_three @ self.hat)
        slopes[:, :, -2] = values
        slopes[:, -1, -2] *= 2
        # By log length: it is as much more as what is common grows, over the less that it covers.
        edge = (1 - common) * end[:, :, 0]
        own, beyond = common @ self.held.T, edge @ self.held.T  # [sets, blocks]
        within = beyond + own * length
        by = (own[:, :, None] * shared) @ turned
        by = (by + by.swapaxes(1, 2))[:, self.first, self.second]
        lost = within[:, self.first] * within[:, self.second]
        lost -= beyond[:, self.first] * beyond[:, self.second]
        slopes[:, :pairs, -1] = copies * (by - lost / length)
        later = (1 - common) * longer + common * length
        slopes[:, pairs:-1, -1] = copies * (later @ self.held.T)
        own, beyond, rows = common @ self.even, edge @ self.even, length[:, 0]
        by_three = 3 * own * np.sum(squares * shared[:, 0], axis=1)
        by_three -= ((beyond + own * rows) ** 3 - beyond**3) / rows
        slopes[:, -1, -1] = copies[:, 0] ** 2 * by_three
        return values, slopes

    def residuals(self, theta: Array, within: Array) -> tuple[Array, Array]:
        """[sets, residuals] in standard errors, of the moments and then of what is assumed, and
        their derivatives [sets, residuals, parameters].

        within: [sets, 2] change of lag and of common per unit of log rank, as of a random walk.
        """
        count, sets = len(self.knots), len(theta)
        values, slopes = self.moments(theta)
        moments = (values - self.found.values) / self.scale
        assumed = np.zeros((sets, 2 * count + 2, theta.shape[1]))
        lags, commons = slice(count), slice(count, 2 * count)
        walk = (np.eye(count)[1:] - np.eye(count)[:-1]) / self.gaps[:, None]
        assumed[:, : count - 1, lags] = walk / within[:, :1, None]
        assumed[:, count - 1 : -4, commons] = walk / within[:, 1:, None]
        assumed[:, -4, lags] = 1 / count
        assumed[:, -1, -1] = 1 / LEVEL
        off = (assumed @ theta[:, :, None])[:, :, 0]
        off[:, -1] -= self.length / LEVEL
        off[:, -3], by_common = _rare(theta[:, commons].mean(axis=1), RARE["common"])
        assumed[:, -3, commons] = by_common[:, None] / count
        off[:, -2], assumed[:, -2, -2] = _rare(theta[:, -2], RARE["copies"])
        return (
            np.concatenate([moments, off], axis=1),
            np.concatenate([slopes / self.scale[:, None], assumed], axis=1),
        )


def _sums(lag: Array, length: Array) -> tuple[Array, Array, Array]:
    """Variance of an autoregression's sum over a document that ends, as a multiple of the number
    of its rows, and its derivatives by the lag and by log length; [sets, grid], of lags held to be
    positive."""
    some = np.clip(lag, 0.0, HIGHEST_SUM)
    power, left = some**length, 1 - some
    tail = 2 * some * (1 - power) / (length * left**2)
    total = np.maximum((1 + some) / left - tail, 0.0)
    slope = 2 / left**2 - 2 * (1 - power - length * power) / (length * left**2) - 2 * tail / left
    longer = tail + 2 * some * power * np.log(np.maximum(some, 1e-300)) / left**2
    return total, np.where((lag >= 0) & (lag < HIGHEST_SUM), slope, 0.0), longer


def _rare(values: Array, scale: float) -> tuple[Array, Array]:
    """Square roots of a Cauchy distribution's -2 log likelihood, with their sign, and their
    derivatives."""
    square = (values / scale) ** 2
    root = np.sqrt(np.log1p(square))
    slope = np.abs(values) / scale**2 / (1 + square) / np.where(root > 0, root, 1.0)
    return np.sign(values) * root, np.where(root > 0, slope, 1 / scale)


def knots(grid: Array, held: Array) -> Array:
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
