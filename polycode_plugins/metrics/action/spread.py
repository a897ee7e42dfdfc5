"""Count, mean and spread of vectors that come in batches."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from polycode_plugins.devices import moved


@dataclass
class Spread:
    """Running moments, merged after Chan, Golub & LeVeque 1983: memory of one vector.

    Attributes:
        count: vectors so far.
        mean: float64 [width]; None before the first.
        sum: of their squared distances to the mean, float64 [], beside the mean.
    """

    count: int = 0
    mean: Tensor | None = None
    sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def take(self, vectors: Tensor) -> None:
        """Take in vectors [n, width]."""
        if vectors.shape[0]:
            values = vectors.double()
            mean = values.mean(dim=0)
            self.merge(Spread(values.shape[0], mean, (values - mean).square().sum()))

    def merge(self, other: Spread) -> None:
        """Take in what `other` has seen."""
        if other.mean is None:
            return
        if self.mean is None:
            self.count, self.mean, self.sum = other.count, other.mean.clone(), other.sum.clone()
            return
        total = self.count + other.count
        device = other.mean.device  # where the vectors are: a state that was loaded is on the CPU
        mean, squares = moved(self.mean, device), moved(self.sum, device)
        delta = other.mean - mean
        apart = delta.square().sum() * self.count * other.count / total
        self.sum = squares + (other.sum + apart)
        self.mean = mean + delta * (other.count / total)
        self.count = total

    def variance(self) -> float:
        """Sum over the components of their variances (divided by count - 1); 0 below two."""
        return float(self.sum) / (self.count - 1) if self.count > 1 else 0.0
