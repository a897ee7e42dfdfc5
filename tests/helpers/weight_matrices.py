"""Weight matrices and their capacities, worked out directly."""

from __future__ import annotations

import numpy as np
import torch


def direct(rows) -> np.ndarray:
    """The definition, pair by pair."""
    w = np.asarray(rows, dtype=np.float64)
    return (w**2).sum(1) ** 2 / ((w @ w.T) ** 2).sum(1)


def matrix(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))
