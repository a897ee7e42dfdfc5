"""Made stimuli: inputs that move along a known path.

Marshall & Kirchner 2024, figure 4: a dot that moves on a circle (x = cos, y = sin), shown to an
image model frame by frame. Frame count, image size and the dot's radius are not stated there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import repeat
from torch import Tensor

from polycode_plugins.errors import DataError


@dataclass(frozen=True, eq=False)
class MovingDot:
    """A dot that moves once around a circle.

    Attributes:
        frames: float32 [frames, channels, size, size], from 0 (background) to 1 (inside the dot).
        positions: float64 [frames, 2], (cos, sin) of the dot's place on the circle, y upwards.
        radius, orbit: of the dot and of its circle, in pixels.
    """

    frames: Tensor
    positions: Tensor
    radius: float
    orbit: float


def moving_dot(
    frames: int = 100,
    *,
    size: int = 32,
    radius: float | None = None,
    orbit: float | None = None,
    channels: int = 3,
) -> MovingDot:
    """A light dot on black that moves anticlockwise in equal steps, from the right, once around.

    The last frame is one step before the first: all frames differ and the closing step is none of
    the path. The dot's edge falls off linearly over one pixel, so that the pixels move smoothly:
    with twice the frames the sum of squared differences halves, where a hard edge would jump pixel
    by pixel and never come to a limit.

    Args:
        frames: at least 2.
        size: height and width in pixels.
        radius: of the dot, in pixels; a tenth of the size unless given.
        orbit: radius of the circle, in pixels; a quarter of the size unless given.
        channels: copies of the same picture.

    Raises:
        DataError: for numbers out of range, and a dot that leaves the picture.
    """
    for name, value, least in (("frames", frames, 2), ("size", size, 1), ("channels", channels, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise DataError(f"{name} must be a whole number from {least}, not {value!r}")
    radius = size / 10 if radius is None else float(radius)
    orbit = size / 4 if orbit is None else float(orbit)
    if not (math.isfinite(radius) and radius > 0):
        raise DataError(f"the dot's radius must be above 0 pixels, not {radius:g}")
    if not (math.isfinite(orbit) and orbit > 0):
        raise DataError(f"the orbit's radius must be above 0 pixels, not {orbit:g}")
    if orbit + radius > size / 2:
        raise DataError(
            f"a dot of radius {radius:g} on an orbit of {orbit:g} leaves a picture of {size} x "
            f"{size} pixels; their sum may be {size / 2:g} at most"
        )
    angles = 2 * math.pi * torch.arange(frames, dtype=torch.float64) / frames
    positions = torch.stack([angles.cos(), angles.sin()], dim=1)
    # Coordinates of pixel centres, from the middle of the picture; rows run downwards.
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    dots = torch.empty(frames, size, size, dtype=torch.float32)
    for dot, (x, y) in zip(dots, (positions * orbit).tolist(), strict=True):
        distance = torch.hypot(at[None, :] - x, at[:, None] + y)
        dot.copy_((radius + 0.5 - distance).clamp(0, 1))
    stack = repeat(dots, "frame height width -> frame channel height width", channel=channels)
    return MovingDot(stack, positions, radius, orbit)
