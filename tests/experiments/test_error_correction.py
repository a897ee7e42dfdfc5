"""Information that is kept is told from information that is lost; the bounds are sound."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from verdicts import outcome, verdict

from polycode_plugins.experiments import error_correction as module

SETTINGS = module.EXPERIMENT.settings["smoke"]


def tables(learnt, random, bound=2.4, spread=0.02):
    """Tables as if these nats had been measured at layers 12, 30 and 60 of three trials."""
    generator = np.random.default_rng(0)
    rows, errors = [], []
    for network, nats in (("learnt", learnt), ("random", random)):
        for trial in range(3):
            errors.append({"network": network, "trial": trial, "bound": bound})
            for layer, value in zip((12, 30, 60), nats, strict=True):
                noisy = value + generator.normal(0, spread)
                row = {"network": network, "trial": trial, "layer": layer, "estimator": "mine"}
                rows.append(row | {"nats": noisy, "error": 0.01})
    limits = pd.DataFrame(
        {"limit": ["corrected", "theorem", "as published"], "nats": [13.7, 17.7, 15.5]}
    )
    return {"information": pd.DataFrame(rows), "errors": pd.DataFrame(errors), "limits": limits}


def test_error_correction_is_found_where_it_is():
    numbers = tables((3.14, 2.8, 2.55), (2.93, 1.31, 0.21))
    for claim in module.EXPERIMENT.claims:
        assert outcome(module.EXPERIMENT, numbers, claim.text) == "holds", claim.text


def test_error_correction_is_not_found_where_it_is_not():
    lost = tables((2.93, 1.31, 0.21), (2.93, 1.31, 0.21), bound=0.5)
    for words in (
        "keeps what a random one loses",
        "necessary information to its output",
        "without an estimator",
        "Training slows the loss",
        "found again (learnt)",
    ):
        assert outcome(module.EXPERIMENT, lost, words) == "does not hold"
    kept = tables((15.0, 2.5, 2.5), (2.9, 2.7, 2.5), bound=3.0)
    for words in (
        "falls below the necessary",
        "not below what the error proves",
        "theoretical limit",
        "found again (random)",
    ):
        assert outcome(module.EXPERIMENT, kept, words) == "does not hold"


def test_one_trial_is_not_judged():
    numbers = tables((3.1, 2.8, 2.5), (2.9, 1.3, 0.2))
    single = {name: t[t["trial"] == 0] if "trial" in t else t for name, t in numbers.items()}
    found = verdict(module.EXPERIMENT, single, "keeps what a random one loses")
    assert found.outcome == "cannot be judged at this scale"


def test_layers_are_counted_as_published():
    settings = dataclasses.replace(SETTINGS, depth=40, trials=1)
    torch.manual_seed(0)
    outputs = list(module.DeepNetworks(settings, 0).layers(torch.zeros(1, 500, 3) + 0.5))
    assert len(outputs) == 61
    assert outputs[-1].shape == (1, 500, 3)
    assert [n for n, y in enumerate(outputs) if (y == 0).float().mean() > 0.1] == [
        n for group in range(10) for n in (6 * group + 4, 6 * group + 5)
    ]
    kept = outputs[5]
    assert (kept == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert torch.equal(kept[kept != 0], outputs[3][kept != 0])
    assert torch.allclose(outputs[4] * 0.8, kept)


def test_the_bound_of_an_error_is_shannons():
    # Cells of 5 bits tell 5 ln 2 of each input; their error alone proves a little less.
    assert module.rate_bound([2**2 / 12 * 2 ** (-2 * 5)] * 3) < 3 * 5 * math.log(2)
    gaussian = 1 / (2 * math.pi * math.e) * 4  # the variance of a Gaussian of entropy ln 2
    assert module.rate_bound([gaussian] * 3) == pytest.approx(0)
    assert module.rate_bound([gaussian / 4] * 3) == pytest.approx(3 * math.log(2))
    assert module.rate_bound([1.0]) == 0


def test_training_keeps_information_and_repeats_itself(tmp_path):
    def made(name, **changed):
        (tmp_path / name).mkdir()
        settings = dataclasses.replace(SETTINGS, layers=(6, 12), samples=400, **changed)
        return module.run(settings, 0, tmp_path / name)

    one, other = (made(name, steps=20) for name in ("one", "other"))
    for name, table in one.items():
        pd.testing.assert_frame_equal(table, other[name], check_exact=True)
    numbers = made("trained", steps=250)
    errors = numbers["errors"].groupby("network")["squared_error"].mean()
    assert errors["learnt"] < 0.25 < errors["random"]
    limits = numbers["limits"].set_index("limit")["nats"]
    assert limits["as published"] == pytest.approx(32 * math.log(2) * 0.7)
    assert limits["theorem"] == pytest.approx(32 * math.log(2) * 0.8)
    assert limits["corrected"] < limits["theorem"]
    assert module.figure(numbers).axes
