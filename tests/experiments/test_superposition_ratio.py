"""Sticky regions are found where one was planted, and nowhere on a smooth curve."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from verdicts import outcome, verdict

from polycode_plugins import theory
from polycode_plugins.experiments import superposition_ratio as module
from polycode_plugins.experiments.plateaus import find_plateaus, relative_steepness
from polycode_plugins.experiments.toy_models import sparse_features, train_toy_models

P = 20.0 ** (-np.arange(58) / 57)


def curve(ratio: np.ndarray, noise: float = 0.01, seed: int = 0) -> dict[str, pd.DataFrame]:
    drawn = np.random.default_rng(seed).normal(0, noise, len(P))
    frame = pd.DataFrame(
        {
            "probability": P,
            "dimensions_per_feature": ratio * np.exp(drawn),
            "optimal": theory.dimensions_per_feature(1 - P, 24.0),
            "element_bits": 24.0,
        }
    )
    return {"curve": frame}


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


def test_the_fitted_entropy_is_the_planted_one():
    numbers = curve(theory.dimensions_per_feature(1 - P, 6.0), noise=0.005)
    assert module.fitted_element_bits(numbers) == pytest.approx(6.0, rel=0.05)
    assert outcome(module.EXPERIMENT, numbers, "entropy of an element") == "holds"
    assert outcome(module.EXPERIMENT, numbers, "entropy of the data") == "does not hold"
    assert outcome(module.EXPERIMENT, curve(0.9 * P), "fewer dimensions on a feature") == (
        "does not hold"
    )


def test_a_curve_that_rises_is_no_trend():
    numbers = curve(np.linspace(0.2, 0.9, 58))
    assert outcome(module.EXPERIMENT, numbers, "The sparser the features") == "does not hold"


def test_inputs_have_the_sparsity_asked_for():
    active = torch.tensor([1.0, 0.25])
    x = sparse_features(active, 4000, 10)
    shares = (x > 0).float().mean((1, 2))
    assert shares.tolist() == pytest.approx([1.0, 0.25], abs=0.01)
    assert x[1][x[1] > 0].mean().item() == pytest.approx(0.5, abs=0.02)


def test_a_dense_toy_model_uses_a_dimension_a_feature(tmp_path):
    dense, sparse = train_toy_models(
        torch.tensor([1.0, 0.05]), 12, 4, batch=64, steps=1200, rate=1e-2, anneal=True, seed=0,
        path=tmp_path / "state.safetensors",
    )  # fmt: skip
    assert 4 / (dense**2).sum().item() == pytest.approx(1, abs=0.1)
    assert 4 / (sparse**2).sum().item() < 0.6


def test_too_short_a_curve_is_not_judged():
    numbers = {"curve": curve(P)["curve"].iloc[::10]}
    found = verdict(module.EXPERIMENT, numbers, "sticks at 1/2")
    assert found.outcome == "cannot be judged at this scale"
    assert "too few" in found.reason
