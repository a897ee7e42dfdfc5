"""Noise models. Without one, information through a deterministic layer is infinite.

For continuous x and y = f(x), smooth and noiseless, I(x; y) has no upper limit: every further
decimal of x is told by y. What an estimator then returns is a property of the estimator. So the
noise is part of the question, and each channel here says what it is and what it leaves finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from polycode_plugins.errors import DataError


@runtime_checkable
class Channel(Protocol):
    """What a noise model offers; anything with these three can be passed as `channel`."""

    @property
    def finite(self) -> bool:
        """Whether information about a continuous input stays finite."""
        ...

    def apply(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """`y` with this channel's noise, of the same shape; drawn from `generator` (a CPU one)."""
        ...

    def describe(self) -> str:
        """One clause that states the noise, for reports."""
        ...


@dataclass(frozen=True)
class Dropout:
    """Each value is set to 0 with probability `rate`, as a network trained with dropout sees it.

    rescale: survivors are divided by 1 - rate (PyTorch, Keras) or left as they are (the
    demonstration of Marshall & Kirchner 2024).

    Survivors are exact. For inputs from a finite set information is finite: an erasure channel
    passes (1 - rate) H(x). Continuous inputs can be read off the survivors without error, so the
    information is infinite, and an estimate says what a critic of its resolution finds.
    """

    rate: float
    rescale: bool = False
    finite: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise DataError(f"The dropout rate must lie between 0 and 1, not {self.rate:g}.")

    def apply(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """`y` with values set to 0."""
        kept = torch.rand(y.shape, generator=generator).to(y.device) >= self.rate
        return y * kept / (1 - self.rate if self.rescale else 1.0)

    def describe(self) -> str:
        """The rate, and whether survivors are scaled."""
        scale = "survivors rescaled" if self.rescale else "survivors not rescaled"
        return f"dropout at rate {self.rate:g}, {scale}"


@dataclass(frozen=True)
class AdditiveGaussian:
    """Independent Gaussian noise of standard deviation `deviation` on every value."""

    deviation: float
    finite: bool = True

    def __post_init__(self) -> None:
        _positive(self.deviation, "standard deviation of additive noise")

    def apply(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """`y` plus noise."""
        noise = torch.randn(y.shape, generator=generator, dtype=torch.float64)
        return y + (self.deviation * noise).to(y)

    def describe(self) -> str:
        """The standard deviation."""
        return f"additive Gaussian noise of standard deviation {self.deviation:g}"


@dataclass(frozen=True)
class AdditiveUniform:
    """Independent noise from U(-half_width, half_width) on every value.

    period: if given, the sum wraps around into [0, period), so that the noise is the same
    everywhere and the information of a uniform input is exact (see `wrapped_uniform`).
    """

    half_width: float
    period: float | None = None
    finite: bool = True

    def __post_init__(self) -> None:
        _positive(self.half_width, "half width of uniform noise")
        if self.period is not None:
            _positive(self.period, "period")

    def apply(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """`y` plus noise, wrapped if there is a period."""
        noise = torch.rand(y.shape, generator=generator, dtype=torch.float64)
        noisy = y + (self.half_width * (2 * noise - 1)).to(y)
        return noisy if self.period is None else torch.remainder(noisy, self.period)

    def describe(self) -> str:
        """The half width and the period."""
        wrapped = "" if self.period is None else f", wrapped at {self.period:g}"
        return f"additive uniform noise of half width {self.half_width:g}{wrapped}"


@dataclass(frozen=True)
class Quantisation:
    """Each value rounded to the middle of one of 2^bits equal cells of [low, high].

    Values outside go to the outermost cells. Deterministic, yet finite: at most bits * ln 2 nats
    per value. Estimates know it by the atoms; convert to integers to have them counted as labels.
    """

    bits: int
    low: float
    high: float
    finite: bool = True

    def __post_init__(self) -> None:
        if self.bits < 1:
            raise DataError(f"Quantisation needs at least 1 bit, not {self.bits}.")
        _positive(self.high - self.low, "range of the quantisation (high - low)")

    def cells(self, y: Tensor) -> Tensor:
        """The index of every value's cell, 0 to 2^bits - 1, int64."""
        scaled = (y.double() - self.low) / (self.high - self.low) * 2**self.bits
        index: Tensor = scaled.floor().clamp(0, 2**self.bits - 1).long()
        return index

    def apply(self, y: Tensor, generator: torch.Generator) -> Tensor:
        """The middle of every value's cell."""
        width = (self.high - self.low) / 2**self.bits
        middle: Tensor = self.low + (self.cells(y).double() + 0.5) * width
        return middle.to(y)

    def describe(self) -> str:
        """The bits and the range."""
        return f"quantisation to {self.bits} bits on [{self.low:g}, {self.high:g}]"


def require_noise(channel: Channel | None, where: str) -> Channel:
    """`channel`, or a `DataError` that says why a noiseless question at `where` has no answer."""
    if channel is None:
        raise DataError(
            f"The information through {where} is infinite, since the layer is deterministic and "
            "every decimal of its input is passed on; state a noise model: channel=Dropout(...), "
            "AdditiveGaussian(...), AdditiveUniform(...) or Quantisation(...)."
        )
    if not isinstance(channel, Channel):
        raise DataError(
            f"{channel!r} is no noise model; it needs apply(y, generator), describe() and finite."
        )
    return channel


def binary_symmetric(flip: float) -> float:
    """Capacity [nats] of a bit that is flipped with probability `flip`: ln 2 - h(flip)."""
    if not 0 <= flip <= 1:
        raise DataError(f"The flip probability must lie in [0, 1], not {flip:g}.")
    noise = sum(-p * math.log(p) for p in (flip, 1 - flip) if p > 0)
    return math.log(2) - noise


def erasure(rate: float, entropy: float = math.log(2)) -> float:
    """Information [nats] left by erasing with probability `rate`: (1 - rate) * `entropy`.

    For a fair bit (1 - rate) ln 2; `entropy` is that of the input in nats.
    """
    if not 0 <= rate <= 1:
        raise DataError(f"The erasure rate must lie in [0, 1], not {rate:g}.")
    return (1 - rate) * entropy


def additive_gaussian(signal_variance: float, noise_variance: float) -> float:
    """Information [nats] of a Gaussian value under Gaussian noise: 1/2 ln(1 + signal / noise)."""
    _positive(noise_variance, "noise variance")
    if not 0 <= signal_variance < math.inf:
        raise DataError(f"The signal variance must be finite and >= 0, not {signal_variance:g}.")
    return 0.5 * math.log1p(signal_variance / noise_variance)


def wrapped_uniform(half_width: float, period: float) -> float:
    """Information [nats] of x ~ U(0, period) under wrapped uniform noise: ln(period / 2 width).

    The output is uniform whatever the noise, and given x uniform over 2 * `half_width`, which must
    not exceed the period.
    """
    _positive(half_width, "half width")
    _positive(period, "period")
    if 2 * half_width > period:
        raise DataError(
            f"Noise of half width {half_width:g} laps itself on a period of {period:g}; the closed "
            "form needs 2 * half_width <= period."
        )
    return math.log(period / (2 * half_width))


def quantised_uniform(bits: int, values: int = 1) -> float:
    """Information [nats] of `values` independent uniforms at `bits` each: values * bits * ln 2."""
    if bits < 1 or values < 1:
        raise DataError(f"bits and values must be at least 1, not {bits} and {values}.")
    return values * bits * math.log(2)


def _positive(value: float, name: str) -> None:
    if not 0 < value < math.inf:
        raise DataError(f"The {name} must be finite and above 0, not {value:g}.")
