"""Nearest neighbours."""

from __future__ import annotations

import math

import numpy as np
import pytest

from polycode_plugins.information import (
    ksg,
)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_neighbours_on_gaussians(rho: float) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4000, 1))
    y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=(4000, 1))
    assert abs(ksg(x, y).nats + 0.5 * math.log(1 - rho**2)) < 0.05
