"""Expected action of random projections (Marshall & Kirchner 2024, supplement 1 and 2.5).

A projection r [m, k] has independent entries N(0, 1/m). Both actions are 1/2 tr(r^T S r) for a
scatter matrix S [m, m]:

- "path", the energy of a path: 1/2 sum_t ||(a_{t+1} - a_t) r||^2, S = sum_t d_t d_t^T over the
  increments d_t = a_{t+1} - a_t;
- "static", supplement 2.5, without a difference: 1/2 mean_t ||(a_t - mean) r||^2, S the covariance
  of the activations (divided by the number of time steps).

Hence mean (k / 2m) tr S and variance over projections (k / 2m^2) tr(S^2): no sampling is needed.
Supplement 2.5 itself drops the factor k/m.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from polycode_plugins.errors import DataError
from polycode_plugins.theory._arguments import Array, Floats, array, choice, count, spectrum

Kind: TypeAlias = Literal["path", "static"]


@dataclass(frozen=True)
class ActionMoments:
    """Mean and variance of the action over random projections.

    expected: mean, in units of activation squared.
    variance: of the action of one projection; the mean of P projections has variance / P.
    """

    expected: float
    variance: float


def expected_action(path: Array, dimensions: int = 3, kind: Kind = "path") -> float:
    """Exact expectation, over random projections, of the action of `path` [time, width].

    With k = `dimensions` and m = width: (k / 2m) sum_t ||a_{t+1} - a_t||^2 for `kind="path"`, and
    (k / 2m) mean_t ||a_t - mean||^2 for "static". Units of activation squared.
    Raises `DataError` if a path has fewer than 2 time steps.
    Source: Marshall & Kirchner 2024, supplement 1 ("path") and 2.5 ("static"); see this module.
    """
    steps = _steps(path, kind)
    k = count(dimensions, "dimensions")
    return float(k / (2 * steps.shape[1]) * (steps**2).sum())


def action_variance(path: Array, dimensions: int = 3, kind: Kind = "path") -> float:
    """Variance, over random projections, of the action of `path` [time, width].

    (k / 2m^2) tr(S^2) with k = `dimensions`, m = width and S as in this module. The mean over P
    projections has this variance divided by P. Units of activation to the fourth.
    """
    steps = _steps(path, kind)
    gram = steps @ steps.T if len(steps) <= steps.shape[1] else steps.T @ steps
    k = count(dimensions, "dimensions")
    return float(k / (2 * steps.shape[1] ** 2) * (gram**2).sum())


def action_moments(scatter: Array, dimensions: int = 3, width: int | None = None) -> ActionMoments:
    """Mean and variance of the action from what a stream of activations leaves behind.

    `scatter` is S of this module: the summed outer products of the increments (for the path action)
    or the covariance (for the static one), as a symmetric matrix [width, width] or as its
    eigenvalues [components]. Eigenvalues left out count as 0, so give `width` if there are fewer of
    them than neurons.
    """
    values = array(scatter, "scatter")
    k = count(dimensions, "dimensions")
    if values.ndim == 2 and values.shape[0] == values.shape[1]:
        if not np.allclose(values, values.T, rtol=0, atol=1e-6 * abs(values).max()):
            raise DataError(
                "scatter is not symmetric, so it is no scatter matrix; pass sum_t d_t d_t^T."
            )
        trace = float(np.trace(values))
    elif values.ndim == 1:
        values = spectrum(values)
        trace = float(values.sum())
    else:
        raise DataError(
            f"scatter has shape {values.shape}; pass a square matrix [width, width] or its "
            "eigenvalues [components]."
        )
    m = len(values) if width is None else count(width, "width")
    if m < len(values) or (values.ndim == 2 and m != len(values)):
        raise DataError(f"width={m} does not fit a scatter of shape {values.shape}; leave it out.")
    return ActionMoments(k / (2 * m) * trace, k / (2 * m**2) * float((values**2).sum()))


def _steps(path: Array, kind: Kind) -> Floats:
    """[steps, width] whose scatter is S: increments, or centred activations / sqrt(time)."""
    values = array(path, "path", 2)
    choice(kind, "kind", ("path", "static"))
    if len(values) < 2:
        raise DataError("path has a single time step, which has no action; pass at least 2.")
    if kind == "path":
        return np.diff(values, axis=0)
    return np.asarray((values - values.mean(0)) / np.sqrt(len(values)))
