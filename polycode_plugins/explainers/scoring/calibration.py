"""Bringing simulated activations to the scale of the true ones, fitted on the calibration split.

Fitted on the records that are scored, a line would turn r into |r|; so it never sees them. A line
of negative slope turns the sign of r round, so it is said wherever the score is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.scoring.formulas import Floats

Method = Literal["none", "linear", "percentile"]
METHODS = ("none", "linear", "percentile")


@dataclass(frozen=True, eq=False)
class Calibration:
    """A map of simulated activations.

    Attributes:
        method: "none", "linear" (least squares) or "percentile" (the simulation's quantiles to
            those of the truth, which keeps the order).
        slope, intercept: of the line; None for other methods.
        knots: quantiles (simulated, true) for "percentile".
    """

    method: Method
    slope: float | None = None
    intercept: float | None = None
    knots: tuple[Floats, Floats] | None = None

    def __call__(self, simulated: Floats) -> Floats:
        """The calibrated activations [tokens]."""
        if self.slope is not None and self.intercept is not None:
            return self.slope * simulated + self.intercept
        if self.knots is not None:
            return np.asarray(np.interp(simulated, *self.knots), dtype=np.float64)
        return simulated

    @property
    def warning(self) -> str:
        """What must be said of it; "" where nothing must."""
        if self.slope is not None and self.slope < 0:
            return "the calibration has a negative slope, so the correlation has changed its sign"
        return ""


def fit(method: Method, simulated: Floats, true: Floats) -> Calibration:
    """The calibration of a unit.

    Args:
        method: see `Calibration`.
        simulated, true: over the tokens of the calibration records, joined.

    Raises:
        DataError: for an unknown method.
        ValueError: where the simulation is constant, so that there is nothing to fit.
    """
    if method not in METHODS:
        raise DataError(f"unknown calibration {method!r}; choose from {', '.join(METHODS)}")
    if method == "none":
        return Calibration("none")
    if not simulated.size or bool((simulated == simulated[0]).all()):
        raise ValueError("the simulation of the calibration records is constant")
    if method == "linear":
        dx = simulated - simulated.mean()
        slope = float(dx @ (true - true.mean()) / (dx @ dx))
        return Calibration("linear", slope, float(true.mean() - slope * simulated.mean()))
    xs, counts = np.unique(simulated, return_counts=True)
    # One knot for each value that occurs: the mean of the true values of the same ranks.
    ends = np.cumsum(counts)
    ys = np.array([part.mean() for part in np.split(np.sort(true), ends[:-1])])
    return Calibration("percentile", knots=(xs, ys))
