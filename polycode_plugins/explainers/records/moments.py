"""Moments of what thousands of units read, over every token that goes by.

A unit that is silent on a few random texts is not constant: it is rare, and what rare units are
like is seen on all of the texts alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class UnitMoments:
    """Moments of one unit's activations.

    Attributes:
        mean, sd: of the activations.
        kurtosis: fourth standardised moment (3 for a Gaussian); None for a constant unit.
        n_tokens: tokens these are taken from.
    """

    mean: float
    sd: float
    kurtosis: float | None
    n_tokens: int


class Moments:
    """Power sums of the activations of some units, about the first mean that was seen.

    Sums of a batch are float32 and their sums float64; about a mean, so that nothing cancels.
    """

    def __init__(self, units: int, device: torch.device) -> None:
        self._count = 0
        self._about = torch.zeros(units, device=device)
        self._sums = torch.zeros(4, units, dtype=torch.float64, device=device)
        self._low = torch.full((units,), torch.inf, device=device)
        self._high = -self._low
        self._begun = torch.zeros(units, dtype=torch.bool, device=device)

    def count(self, mask: Tensor) -> None:
        """Count the tokens of a batch, once for all units; mask bool [batch, position]."""
        self._count += int(mask.sum())

    def update(self, first: int, values: Tensor, mask: Tensor | None) -> None:
        """Take in what some of the units read in a batch.

        Args:
            first: of these units.
            values: float32 [units, batch, position], contiguous.
            mask: bool [batch, position], which count; None for all. Others hold the value of a
                position of the same text that does.
        """
        flat = values.flatten(1)
        part = slice(first, first + len(flat))
        counts = None if mask is None else mask.flatten().to(flat)
        if not bool(self._begun[first]):
            n = flat.shape[1] if counts is None else counts.sum()
            total = flat.sum(dim=1) if counts is None else flat @ counts
            self._about[part], self._begun[part] = total / n, True
        self._low[part] = torch.minimum(self._low[part], flat.amin(dim=1))
        self._high[part] = torch.maximum(self._high[part], flat.amax(dim=1))
        off = flat - self._about[part, None]
        if counts is not None:
            off *= counts
        square = off * off
        sums = (
            off.sum(dim=1),
            square.sum(dim=1),
            torch.linalg.vecdot(square, off),
            torch.linalg.vecdot(square, square),
        )
        self._sums[:, part] += torch.stack(sums).double()

    def of(self, unit: int, sign: int = 1) -> UnitMoments:
        """The moments of one unit, with its sign."""
        n = max(1, self._count)
        m1, m2, m3, m4 = (self._sums[:, unit] / n).tolist()
        mean = float(self._about[unit]) + m1
        if not bool(self._high[unit] > self._low[unit]):
            return UnitMoments(sign * mean, 0.0, None, self._count)
        variance = max(m2 - m1**2, 0.0)
        fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
        kurtosis = fourth / variance**2 if variance > 0 else None
        return UnitMoments(sign * mean, variance**0.5, kurtosis, self._count)
