"""Correlated Gaussians, and MINE in brief."""

from __future__ import annotations

import numpy as np
import pytest

from polycode_plugins.information import (
    mine,
)
from polycode_plugins.information.samples import Floats


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for a moment only, where the last digits do not matter."""
    monkeypatch.setattr(mine, "TRAINING", mine.Training(steps=100))
    monkeypatch.setattr(mine, "REFINEMENT", mine.Training(steps=50, rate=1e-3))


def gaussian_pair(correlations: list[float], n: int, seed: int) -> tuple[Floats, Floats, float]:
    """Coordinates with these canonical correlations, rotated on both sides, and their truth."""
    rng = np.random.default_rng(seed)
    r = np.array(correlations)
    x = rng.normal(size=(n, len(r)))
    y = r * x + np.sqrt(1 - r**2) * rng.normal(size=x.shape)
    left, right = (np.linalg.qr(rng.normal(size=(len(r), len(r))))[0] for _ in range(2))
    return x @ left, y @ right, float(-0.5 * np.log1p(-(r**2)).sum())
