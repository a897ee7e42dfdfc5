"""Plateaus are found where they are planted, and not on smooth curves."""

from __future__ import annotations

import numpy as np
import pytest
from ratio_curves import P, curve
from verdicts import outcome

from polycode_plugins import theory
from polycode_plugins.experiments import superposition_ratio as module
from polycode_plugins.experiments.plateaus import find_plateaus, relative_steepness


def held_at_half(p: np.ndarray) -> np.ndarray:
    """A power law that is held at 1/2 over a factor of two in sparsity."""
    x = 1 / p
    free = x**-0.8
    return np.where(free > 0.5, free, np.minimum(0.5, free * 2**0.8))


def test_a_planted_plateau_is_found_where_it_is():
    plateaus = find_plateaus(1 / P, held_at_half(P) * np.exp(0.01 * np.sin(np.arange(58) * 7.3)))
    assert len(plateaus) == 1
    assert plateaus[0].level == pytest.approx(0.5, rel=0.02)
    assert plateaus[0].first == pytest.approx(2.38, rel=0.1)
    assert plateaus[0].last == pytest.approx(4.76, rel=0.1)
    numbers = curve(held_at_half(P))
    assert outcome(module.EXPERIMENT, numbers, "sticks at 1/2") == "holds"
    assert outcome(module.EXPERIMENT, numbers, "sticks at 3/4") == "does not hold"


@pytest.mark.parametrize("seed", range(8))
def test_no_plateau_is_found_on_smooth_curves(seed):
    for ratio in (P**0.8, theory.dimensions_per_feature(1 - P, 4.0)):
        noisy = ratio * np.exp(np.random.default_rng(seed).normal(0, 0.02, len(P)))
        assert find_plateaus(1 / P, noisy) == []
        assert relative_steepness(1 / P, noisy, 0.5).low > 0.5
