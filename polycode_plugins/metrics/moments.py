"""Mean and centred scatter of samples that are gone.

Merges follow Chan, Golub & LeVeque 1983.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from polycode_plugins.errors import StateError
from polycode_plugins.metrics import triangle

# A matrix product over a few hundred rows already runs at full speed; more only costs memory.
BLOCK_VALUES = 4_000_000
BLOCK_ROWS = (512, 4096)


class Moments:
    """Count, mean and sums of products of deviations from it.

    Attributes:
        count: samples.
        mean: float64 [width].
        panels: float64, the sums: rows `start` to `stop` of the lower triangle, [rows, stop] each.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64, device=device)
        self.panels = triangle.empty(width, device)

    @property
    def width(self) -> int:
        """Features per sample."""
        return self.mean.shape[0]

    def add(self, parts: Sequence[Tensor], dtype: torch.dtype) -> None:
        """Take in rows [n, width] of each part, one block at a time.

        Args:
            parts: which stay as they are.
            dtype: of the products of one block, float64 or float32.
        """
        products = triangle.Products(self.panels, dtype, block_rows(self.width))
        for block in _blocks(parts, products.rows):
            mean, centred = self._centred(block)
            # Centred in float64 and rounded once: a far mean costs no digits of the variance.
            products.add(centred.to(dtype), self._shift(len(block), mean))
        products.finish()

    def merge(self, other: Moments) -> None:
        """Take in what others have gathered, on any device."""
        beside = self._shift(other.count, other.mean)
        if beside is not None:
            triangle.add_products(self.panels, beside[None])
        for own, more in zip(self.panels, other.panels, strict=True):
            own.add_(more.to(own.device))

    def without(self, rows: Tensor) -> Moments:
        """What the samples without some of them give, float64 [k, width]."""
        apart = rows.to(self.mean) - self.mean
        count = self.count - len(rows)
        moved = -apart.sum(dim=0) / count
        left = object.__new__(type(self))
        left.count, left.mean, left.panels = count, self.mean + moved, []
        start = 0
        for panel in self.panels:
            stop = panel.shape[1]
            rest = panel - apart[:, start:stop].T @ apart[:, :stop]
            left.panels.append(rest.addr_(moved[start:stop], moved[:stop], alpha=-count))
            start = stop
        return left

    def squares(self) -> Tensor:
        """float64 [width], sums of squared deviations; makes no matrix of width x width."""
        return triangle.diagonal(self.panels)

    def covariance(self) -> Tensor:
        """float64 [width, width], normalised by count - 1."""
        return triangle.symmetric(self.panels).div_(self.count - 1)

    def to(self, device: torch.device, *, copy: bool = False) -> Moments:
        """The same on a device; with `copy` in memory of its own, wherever it was."""
        moved = object.__new__(type(self))
        moved.count, moved.mean = self.count, self.mean.to(device, copy=copy)
        moved.panels = [panel.to(device, copy=copy) for panel in self.panels]
        return moved

    def state(self) -> dict[str, Tensor]:
        """Mean and packed lower triangle, on the CPU."""
        return {"mean": self.mean.cpu().clone(), "scatter": triangle.packed(self.panels)}

    @classmethod
    def of_state(cls, count: int, state: Mapping[str, Tensor]) -> Self:
        """What `state` gave of so many samples.

        Raises:
            StateError: where the scatter is not one of as many features as the mean.
            KeyError: for a state with one of them.
        """
        mean, packed = state["mean"].double(), state["scatter"].double()
        width = mean.shape[0]
        if packed.shape != (width * (width + 1) // 2,):
            raise StateError(f"the saved scatter does not fit a width of {width}")
        held = object.__new__(cls)
        held.count, held.mean = count, mean.clone()
        held.panels = triangle.unpacked(packed, width)
        return held

    @staticmethod
    def _centred(rows: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of float64 rows, and the rows less it, in their place."""
        mean = rows.mean(dim=0)
        return mean, rows.sub_(mean)

    def _shift(self, count: int, mean: Tensor) -> Tensor | None:
        """Count in `count` more samples around `mean`; returns the vector whose products with
        itself their distance from the mean so far adds, None for the first ones."""
        if self.count == 0:
            self.count, self.mean = count, mean.to(self.mean.device, copy=True)
            return None
        total = self.count + count
        delta = mean.to(self.mean.device) - self.mean
        scale = math.sqrt(self.count * count / total)
        self.mean.add_(delta, alpha=count / total)
        self.count = total
        return delta * scale


def block_rows(width: int) -> int:
    """Samples over which products are summed in their own precision, at most."""
    return min(BLOCK_ROWS[1], max(BLOCK_ROWS[0], BLOCK_VALUES // width))


def _blocks(parts: Sequence[Tensor], most: int) -> Iterator[Tensor]:
    """Rows, one part after the other, as float64 in blocks of equal size, at most `most`; each in
    the memory of the one before.

    Where blocks begin depends on the rows alone, not on the batches they came in: a state that was
    saved and loaded goes on bit by bit as it would have.
    """
    count = sum(map(len, parts))
    size = -(-count // -(-count // most))
    width, device = parts[0].shape[1], parts[0].device
    held = torch.empty(size, width, dtype=torch.float64, device=device)
    filled = 0
    for part in parts:
        while len(part):
            some, part = part[: size - filled], part[size - filled :]
            held[filled : filled + len(some)].copy_(some)
            filled += len(some)
            if filled == size:
                yield held
                filled = 0
    if filled:
        yield held[:filled]
