"""Reading arguments: what every closed form checks before it computes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.errors import DataError, near

Floats: TypeAlias = NDArray[np.float64]
#: What a user may pass for an array: NumPy, nested sequences, or a torch tensor on any device.
Array: TypeAlias = Any
#: Several numbers at once, for the functions that broadcast.
Many: TypeAlias = NDArray[Any] | Sequence[float]


def array(value: Array, name: str, dimensions: int | None = None) -> Floats:
    """`value` as a finite, non-empty float64 array of `dimensions` axes (None: any number)."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().double()  # NumPy has no bfloat16
    try:
        out = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is not an array of real numbers ({error}); pass one.") from error
    if dimensions is not None and out.ndim != dimensions:
        wanted = f"an array of {dimensions} axes" if dimensions else "a single number"
        raise DataError(f"{name} must be {wanted}, not an array of shape {out.shape}; reshape it.")
    if out.size == 0:
        raise DataError(f"{name} is empty (shape {out.shape}); pass at least one value.")
    if not np.isfinite(out).all():
        raise DataError(f"{name} holds NaN or infinity; remove those values first.")
    return out


def within(
    value: Array,
    name: str,
    low: float,
    high: float = np.inf,
    *,
    open_low: bool = False,
    dimensions: int | None = None,
) -> Floats:
    """`value` as an array whose every element lies in [low, high], or in (low, high]."""
    out = array(value, name, dimensions)
    bad = (out <= low if open_low else out < low) | (out > high)
    if bad.any():
        sign = ">" if open_low else ">="
        upper = "" if high == np.inf else f" and <= {high:g}"
        raise DataError(f"{name} must be {sign} {low:g}{upper}, not {out[bad].flat[0]:g}.")
    return out


def number(
    value: Any, name: str, low: float, high: float = np.inf, *, open_low: bool = False
) -> float:
    """One number in [low, high], or in (low, high]."""
    return float(within(value, name, low, high, open_low=open_low, dimensions=0))


def count(value: Any, name: str) -> int:
    """A whole number of at least 1."""
    try:
        out = operator.index(value)
    except TypeError:
        raise DataError(f"{name} must be a whole number, not {value!r}.") from None
    if out < 1:
        raise DataError(f"{name} must be at least 1, not {out}.")
    return out


def choice(value: str, name: str, known: tuple[str, ...]) -> str:
    """One of the `known` names."""
    if value not in known:
        raise DataError(
            f"{name} must be one of {', '.join(known)}, not {value!r}{near(str(value), known)}."
        )
    return value


def spectrum(eigenvalues: Array) -> Floats:
    """Covariance eigenvalues [components]; negatives of rounding size count as zero."""
    out = array(eigenvalues, "eigenvalues", 1)
    # float32 eigensolvers return negatives of about 1e-7 of the largest eigenvalue.
    if out.min() < -1e-6 * max(out.max(), 0.0):
        raise DataError(
            f"eigenvalues must not be negative, found {out.min():g}: these are no variances; "
            "pass the eigenvalues of a covariance."
        )
    return np.maximum(out, 0.0)


def broadcast(**named: Floats) -> list[Floats]:
    """The arrays at their common shape."""
    try:
        return list(np.broadcast_arrays(*named.values()))
    except ValueError:
        shapes = " and ".join(f"{name} {value.shape}" for name, value in named.items())
        raise DataError(
            f"The shapes of {shapes} do not broadcast; give them equal shapes, or one a single "
            "number."
        ) from None


def scalar_or_array(out: Floats) -> Any:
    """A plain float for scalar arguments, the array otherwise."""
    return float(out) if out.ndim == 0 else out
