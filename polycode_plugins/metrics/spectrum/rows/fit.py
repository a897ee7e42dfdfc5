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

from polycode_plugins.metrics.processes import apart
from polycode_plugins.metrics.spectrum.rows.correlation import Array, RowCorrelation
from polycode_plugins.metrics.spectrum.rows.moment_model import MomentModel

if TYPE_CHECKING:
    from polycode_plugins.metrics.spectrum.rows.dependence import Moments

STEPS = 40
SETTLED = 1e-5
EVEN = (0.15, 0.5)  # change per unit of log rank, as of a random walk: the likeliest is taken
SMALL_LAG = 0.3
LIKELY = 0.02  # weight of a minimum beside the others below which it is left out
DOUBTS = 14
FELT = 0.02  # of the strongest doubt; those weaker are left out
END = {"lag": 0.2, "common": 0.1}  # by which the last ranks may be off: nothing sees them alone


def search(model: MomentModel, theta: Array, within: Array) -> Array:
    """Where sums of squares are least, from many beginnings [sets, parameters] at once.

    within: [sets, 2], see `MomentModel.residuals`.
    """
    theta = theta.copy()
    damping = np.full(len(theta), 1e-2)
    residual, slope = model.residuals(theta, within)
    value = np.square(residual).sum(axis=1)
    todo = np.arange(len(theta))
    for _ in range(STEPS):
        at, turned = theta[todo], slope[todo].swapaxes(1, 2)
        square, pull = turned @ slope[todo], (turned @ residual[todo][:, :, None])[:, :, 0]
        # A parameter at its bound stays there while it is pulled beyond it.
        free = ~((at <= model.low) & (pull > 0) | (at >= model.high) & (pull < 0))
        own = np.einsum("spp->sp", square)
        damped = np.where(free, own + damping[todo, None] * (own + 1e-9), 1.0)
        square = square * (free[:, :, None] & free[:, None, :])
        np.einsum("spp->sp", square)[:] = damped
        step = np.linalg.solve(square, (free * pull)[:, :, None])[:, :, 0]
        tried = np.clip(at - step, model.low, model.high)
        other, changed = model.residuals(tried, within[todo])
        less = np.square(other).sum(axis=1)
        gained = value[todo] - less
        better = gained > 0
        damping[todo] *= np.where(better, 0.2, 5.0)
        done = np.where(better, gained < SETTLED * (1 + less), damping[todo] > 1e6)
        taken = todo[better]
        theta[taken], value[taken] = tried[better], less[better]
        residual[taken], slope[taken] = other[better], changed[better]
        todo = todo[~done]
        if not len(todo):
            break
    return theta


@dataclass(frozen=True)
class _Mode:
    """A description that explains the moments, and how badly: -2 log evidence, by Laplace's
    approximation. slope: [residuals, parameters] there."""

    theta: Array
    slope: Array
    evidence: float


def _modes(model: MomentModel, found: Moments) -> list[_Mode]:
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
    begins = search(model, np.stack(starts), np.full((len(starts), 2), EVEN[-1]))
    # With one knot there is nothing to be even.
    assumed = list(product(EVEN[::-1], EVEN))[: 1 if count == 1 else None]
    within = np.array(assumed * len(starts))
    theta = search(model, np.repeat(begins, len(assumed), axis=0), within)
    residual, slope = model.residuals(theta, within)
    evidence = np.square(residual).sum(axis=1)
    evidence += np.linalg.slogdet(slope.swapaxes(1, 2) @ slope)[1]
    evidence += 2 * (count - 1) * np.log(within).sum(axis=1)
    # A large lag that is taken to be very even hides where it bends.
    kept = (within[:, 0] >= EVEN[-1]) | (theta[:, :count].mean(axis=1) <= SMALL_LAG)
    return [_Mode(theta[i], slope[i], float(evidence[i])) for i in np.flatnonzero(kept)]


def _errors(model: MomentModel, mode: _Mode, found: Moments) -> Array:
    """Covariance of the parameters of a minimum."""
    slope, values = mode.slope, len(found.values)
    noise = found.covariance
    noise[np.diag_indices(values)] = np.maximum(noise.diagonal(), found.chance**2)
    inner = np.linalg.inv(slope.T @ slope)
    gain = inner @ (slope[:values] / model.scale[:, None]).T
    prior = slope[values:]
    return np.asarray(gain @ noise @ gain.T + inner @ prior.T @ prior @ inner)


@apart
def fitted(found: Moments, places: tuple[Array, Array] | None, length: float) -> RowCorrelation:
    """The correlation whose moments these are, with what is doubtful of it.

    An autoregression and what is common to documents have nearly the same moments, so that there
    are several minima: the likeliest is the description, and the others, by their weight, are part
    of the doubt.

    places: [grid] ranks and [blocks, grid] weights of the blocks there. length: of documents,
    roughly.
    """
    model = MomentModel(found, places, length)
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
