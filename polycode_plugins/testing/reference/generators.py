"""The arrays of the reference cases: functions of `numpy.random.default_rng(seed)` and of numbers.

Each is NumPy alone and a few lines long, so that it can be written anew in another language or
library; whoever has the arrays (`polycode reference --export`) needs none of it. The order in which
random numbers are drawn is part of a generator: it decides the arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = dict[str, Array]

#: Quantisation cuts at so many standard deviations, as the metric's own channel does.
RANGE = 3.0


def correlated(
    rng: Generator, samples: int, width: int, correlation: float, *, x: str = "", y: str = ""
) -> Arrays:
    """Gaussian coordinates, each correlated with its own partner, then one of `DISTORTIONS`.

    x = z, y = correlation * z + sqrt(1 - correlation^2) * w, with z and w [samples, width] standard
    normal, z drawn first.
    """
    a = rng.standard_normal((samples, width))
    b = correlation * a + np.sqrt(1 - correlation**2) * rng.standard_normal((samples, width))
    return {"x": distorted(a, x), "y": distorted(b, y)}


def distorted(values: Array, how: str) -> Array:
    """`values` after one of `DISTORTIONS`, named as in "rounded 1"; "" leaves them as they are."""
    if not how:
        return values
    name, _, number = how.partition(" ")
    return DISTORTIONS[name](values, int(number or 0))


def _quantised(values: Array, bits: int) -> Array:
    cells = 2**bits
    index = np.clip(np.floor((values + RANGE) / (2 * RANGE) * cells), 0, cells - 1)
    return np.asarray((index + 0.5) * (2 * RANGE / cells) - RANGE)


def _bfloat16(values: Array, _: int) -> Array:
    """Rounded to the nearest float with 8 bits of mantissa, ties to even."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return (rounded << np.uint32(16)).astype(np.uint32).view(np.float32).astype(np.float64)


#: What networks and number formats do to values: relu; rounded to so many decimals; quantised to
#: the middle of 2^bits cells within three standard deviations; bfloat16.
DISTORTIONS: dict[str, Callable[[Array, int], Array]] = {
    "relu": lambda values, _: np.maximum(values, 0.0),
    "rounded": lambda values, decimals: np.round(values, decimals),
    "quantised": _quantised,
    "bfloat16": _bfloat16,
}


def labels(rng: Generator, samples: int, values: int, noise: float) -> Arrays:
    """x uniform on 0 .. values - 1; y is x, or with probability `noise` a uniform value anew.

    Drawn in this order: x, the new values, the uniform numbers that decide.
    """
    x = rng.integers(values, size=samples)
    other = rng.integers(values, size=samples)
    return {"x": x, "y": np.where(rng.random(samples) < noise, other, x)}


def erased(rng: Generator, samples: int, values: int, rate: float) -> Arrays:
    """x uniform on 0 .. values - 1; y is x, or with probability `rate` the symbol `values`.

    Drawn in this order: x, the uniform numbers that decide.
    """
    x = rng.integers(values, size=samples)
    return {"x": x, "y": np.where(rng.random(samples) < rate, values, x)}


def additive(rng: Generator, samples: int, half_width: float) -> Arrays:
    """x uniform on [0, 1); y = x + noise, uniform on [-half_width, half_width); x drawn first."""
    x = rng.random((samples, 1))
    return {"x": x, "y": x + half_width * (2 * rng.random((samples, 1)) - 1)}


def student(rng: Generator, samples: int, degrees: float) -> Arrays:
    """x and y from a bivariate t distribution without correlation: z / sqrt(chi^2 / degrees).

    z [samples, 2] standard normal is drawn first, then the chi-squared numbers [samples, 1].
    """
    z = rng.standard_normal((samples, 2))
    z = z / np.sqrt(rng.chisquare(degrees, (samples, 1)) / degrees)
    return {"x": z[:, :1], "y": z[:, 1:]}


def power_law(rng: Generator, samples: int, width: int, exponent: float) -> Arrays:
    """Independent Gaussian rows [samples, width] whose i-th column has variance i^-exponent."""
    scale = np.arange(1, width + 1) ** (-exponent / 2)
    return {"rows": rng.standard_normal((samples, width)) * scale}


def random_walk(rng: Generator, times: int, width: int) -> Arrays:
    """A path [times, width] whose steps are standard normal."""
    return {"path": rng.standard_normal((times, width)).cumsum(0)}


def circle(rng: Generator, times: int, width: int, radius: float) -> Arrays:
    """A path [times, width] once around a circle in its first two coordinates, open by one step."""
    angle = 2 * np.pi * np.arange(times) / times
    path = np.zeros((times, width))
    path[:, 0], path[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
    return {"path": path}


def polygon(rng: Generator, features: int) -> Arrays:
    """An embedding [features, 2] whose rows are the corners of a regular polygon."""
    angle = 2 * np.pi * np.arange(features) / features
    return {"embedding": np.stack([np.cos(angle), np.sin(angle)], axis=1)}


def constants(rng: Generator, **arrays: list[float]) -> Arrays:
    """The arrays that the case itself spells out; nothing is drawn."""
    return {name: np.asarray(values, dtype=np.float64) for name, values in arrays.items()}


GENERATORS: dict[str, Callable[..., Arrays]] = {
    f.__name__: f
    for f in (
        correlated,
        labels,
        erased,
        additive,
        student,
        power_law,
        random_walk,
        circle,
        polygon,
        constants,
    )
}
