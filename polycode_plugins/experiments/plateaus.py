"""Where a falling curve is held up: sticky regions, found by a test of its local steepness.

The steepness of log y against log x is measured in windows of neighbouring points by least squares.
A window is sticky where the whole of its interval lies below half the median steepness of the
curve, with the interval widened for the number of windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.experiments.claims import CannotJudge, Effect

Floats = NDArray[np.float64]
WINDOW = 5


@dataclass(frozen=True)
class Plateau:
    """A sticky region: from `first` to `last` (x, ascending), held at `level` (y)."""

    first: float
    last: float
    level: float


def steepness(x: Floats, y: Floats, window: int = WINDOW) -> tuple[Floats, Floats]:
    """-d log y / d log x in every window of points, and its standard error, [points - window + 1].

    x ascends. The noise of the points is pooled over windows (the median, so that bends in the
    curve do not count as noise).
    """
    if len(x) < window + 3:
        raise CannotJudge(f"{len(x)} points are too few for a curve's local steepness")
    lx, ly = np.log(x), np.log(y)
    slopes, spreads, residual = [], [], []
    for start in range(len(x) - window + 1):
        u, v = lx[start : start + window], ly[start : start + window]
        u = u - u.mean()
        slope = float(u @ v / (u @ u))
        left = v - v.mean() - slope * u
        slopes.append(-slope)
        spreads.append(float(u @ u))
        residual.append(float(left @ left) / (window - 2))
    noise = np.sqrt(np.median(residual))
    return np.array(slopes), noise / np.sqrt(np.array(spreads))


def find_plateaus(x: Floats, y: Floats, below: float = 0.95) -> list[Plateau]:
    """Sticky regions of y(x) where y < `below` (above it the curve has not begun to fall)."""
    from scipy.stats import norm

    x, y = _falling(x, y, below)
    slope, error = steepness(x, y)
    wide = float(norm.ppf(1 - 0.025 / len(slope)))
    sticky = slope + wide * error < np.median(slope) / 2
    covered = np.zeros(len(x), dtype=bool)
    for start in np.flatnonzero(sticky):
        covered[start : start + WINDOW] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[False], covered, [False]]).astype(int)))
    return [
        Plateau(float(x[a]), float(x[b - 1]), float(np.exp(np.log(y[a:b]).mean())))
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]


def relative_steepness(x: Floats, y: Floats, level: float, below: float = 0.95) -> Effect:
    """Steepness where y passes `level`, over the median steepness of the curve; 1 if nothing holds.

    The window is the one whose mean is nearest to the level.
    """
    x, y = _falling(x, y, below)
    if not y.min() <= level <= y.max():
        raise CannotJudge(f"the curve does not pass {level:g}")
    slope, error = steepness(x, y)
    means = np.array([np.log(y[i : i + WINDOW]).mean() for i in range(len(slope))])
    at = int(np.argmin(np.abs(means - np.log(level))))
    typical = float(np.median(slope))
    value, half = slope[at] / typical, 1.96 * error[at] / typical
    return Effect(float(value), float(value - half), float(value + half))


def _falling(x: Any, y: Any, below: float) -> tuple[Floats, Floats]:
    order = np.argsort(x)
    x, y = np.asarray(x, dtype=np.float64)[order], np.asarray(y, dtype=np.float64)[order]
    begun = np.flatnonzero(y >= below)
    start = int(begun[-1]) + 1 if len(begun) else 0
    return x[start:], y[start:]
