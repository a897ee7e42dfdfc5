"""Trained capacities come near the closed form; planted allocations get their verdict."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from verdicts import outcome, verdict

from polycode_plugins import theory
from polycode_plugins.errors import DataError
from polycode_plugins.experiments import capacity_allocation as module
from polycode_plugins.experiments.importance_models import sampler, train_importance_models

V = np.geomspace(1, 1 / 64, 32)
KURTOSIS = (2.5, 6.0, 14.0, 30.0)


def allocated(capacity_of, noise=0.002, replicas=4):
    """Tables as if networks had the capacities `capacity_of(kurtosis)` [32]."""
    generator = np.random.default_rng(0)
    features, networks = [], []
    for name in module.TRAINED:
        for number, k in enumerate(np.repeat(KURTOSIS, replicas)):
            optimal = theory.optimal_allocation(V, k, 8)
            capacity = np.clip(capacity_of(k) + generator.normal(0, noise, 32), 0, 1)
            row = {"trained": name, "kurtosis": k, "network": number}
            frame = {**row, "importance": V, "capacity": capacity, "optimal": optimal}
            features.append(pd.DataFrame(frame))
            share = float(((capacity >= 0.05) & (capacity <= 0.95)).mean())
            ratio = 1.002 if name != "ReLU" else float("nan")
            networks.append(row | {"polysemantic": share, "loss_ratio": ratio})
    return {"features": pd.concat(features), "networks": pd.DataFrame(networks)}


def optimum(k):
    return theory.optimal_allocation(V, k, 8)


@pytest.mark.parametrize("name", ["quadratic", "ReLU"])
def test_the_optimal_allocation_is_recognised_and_an_even_one_is_not(name):
    good, even = allocated(optimum), allocated(lambda k: np.full(32, 0.25))
    for words in ("most important features are", "least important features are ignored"):
        claim = f"{words}" + ("" if "ignored" not in words else f" ({name})")
        claim = f"{words} represented monosemantically ({name})" if "most" in words else claim
        assert outcome(module.EXPERIMENT, good, claim) == "holds"
        assert outcome(module.EXPERIMENT, even, claim) == "does not hold"
    for claim in (
        f"impact on the loss ({name})",
        f"grows with the kurtosis of the inputs ({name})",
    ):
        assert outcome(module.EXPERIMENT, good, claim) == "holds"
        assert outcome(module.EXPERIMENT, even, claim) == "does not hold"


def test_another_allocation_is_no_agreement():
    for capacity_of, expected in ((optimum, "holds"), (lambda k: optimum(4.0), "does not hold")):
        found = outcome(module.EXPERIMENT, allocated(capacity_of), "allocates capacity as")
        assert found == expected
    numbers = allocated(optimum)
    for factor, expected in ((1.0, "holds"), (0.99, "does not hold"), (1.1, "does not hold")):
        networks = numbers["networks"].assign(loss_ratio=lambda t, f=factor: t["loss_ratio"] * f)
        changed = {**numbers, "networks": networks}
        assert outcome(module.EXPERIMENT, changed, "Training finds the optimum") == expected


def test_a_difference_between_models_is_found_and_its_absence_is_not_one():
    same = allocated(optimum, noise=0.01)
    assert outcome(module.EXPERIMENT, same, "dense inputs of equal kurtosis") == "holds"
    assert outcome(module.EXPERIMENT, same, "in some architectures") == "does not hold"
    networks = same["networks"].copy()
    networks.loc[networks["trained"] != "quadratic", "polysemantic"] += 0.2
    other = {**same, "networks": networks}
    assert outcome(module.EXPERIMENT, other, "dense inputs of equal kurtosis") == "does not hold"
    assert outcome(module.EXPERIMENT, other, "in some architectures") == "holds"


@pytest.mark.parametrize("inputs", ["sparse", "dense"])
def test_inputs_have_the_kurtosis_asked_for(inputs):
    kurtosis = torch.tensor([2.0, 6.0])
    torch.manual_seed(0)
    x = sampler(kurtosis, inputs)(200_000, 5).double()
    assert (x**2).mean((1, 2)).tolist() == pytest.approx([1, 1], rel=0.01)
    assert (x**4).mean((1, 2)).tolist() == pytest.approx([2, 6], rel=0.03)
    assert (x == 0).any().item() == (inputs == "sparse")
    with pytest.raises(DataError, match="at least"):
        sampler(torch.tensor([1.0]), inputs)


def test_trained_networks_come_near_the_closed_form(tmp_path):
    settings = dataclasses.replace(
        module.EXPERIMENT.settings["smoke"], kurtosis=(6.0, 9.0), steps=800, batch=256
    )
    numbers = module.run(settings, 0, tmp_path)
    assert outcome(module.EXPERIMENT, numbers, "closed form does") == "holds"
    found = verdict(module.EXPERIMENT, numbers, "Training finds the optimum")
    assert 1 <= found.effect.value < 1.02
    assert module.figure(numbers).axes


def test_the_same_seed_trains_the_same_networks():
    first, again, other = (
        train_importance_models(
            "relu", torch.ones(2, 6), torch.tensor([2.0, 9.0]), 2, batch=16, steps=20, rate=1e-2,
            seed=seed, path=None,
        )
        for seed in (3, 3, 4)
    )  # fmt: skip
    assert np.array_equal(first.embedding, again.embedding)
    assert np.array_equal(first.loss, again.loss)
    assert not np.array_equal(first.embedding, other.embedding)
