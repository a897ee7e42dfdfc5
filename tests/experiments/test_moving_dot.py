"""Action by depth and against the exponent: planted relations are found, absent ones are not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from verdicts import outcome

from polycode_plugins import theory
from polycode_plugins.experiments import moving_dot as module
from polycode_plugins.experiments.resnet_vae import HIDDEN

SETTINGS = dataclasses.replace(
    module.EXPERIMENT.settings["smoke"], images=40, epochs=1, networks=2, analysed=40, frames=16
)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    return module.run(SETTINGS, 0, tmp_path_factory.mktemp("states"))


def test_a_run_measures_every_layer_and_repeats_itself(numbers, tmp_path):
    layers = numbers["layers"]
    assert len(layers) == 2 * 2 * len(HIDDEN)
    known = layers[layers["weights"] == "trained"]
    assert np.isfinite(known["exponent"]).all()
    assert layers[layers["weights"] == "untrained"]["exponent"].isna().all()
    # The sum of squared steps over the variance is that ratio times the number of steps.
    steps = layers["normalised"] / layers["von_neumann"]
    assert steps.median() == pytest.approx(SETTINGS.frames - 1, rel=0.1)
    assert np.abs(layers["action"] / layers["action_exact"] - 1).max() < 0.3
    assert len(numbers["projections"]) == len(module.DRAWN) * module.EACH * SETTINGS.frames
    again = module.run(dataclasses.replace(SETTINGS, networks=1), 0, tmp_path)
    first = {**numbers, "layers": layers[layers["network"] == 0]}
    for name, table in first.items():
        pd.testing.assert_frame_equal(
            table.reset_index(drop=True), again[name].reset_index(drop=True), check_exact=True
        )
    assert module.figure(numbers).axes


def planted(relation: float, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Four networks whose action falls as the exponent rises, to the power `relation`."""
    generator = np.random.default_rng(seed)
    rows = []
    for network in range(4):
        for depth in range(11):
            exponent = 1.2 + 0.2 * depth + generator.normal(0, 0.02)
            noise = float(np.exp(generator.normal(0, 0.1)))
            finite = 2 * 500 / 3 * theory.power_law_action(500, exponent)
            unit = 3 / (2 * 500)
            rows.append(
                {
                    "weights": "trained", "network": network, "depth": depth,
                    "exponent": exponent, "normalised": exponent**-relation * noise,
                    "action": 1 + generator.normal(0, 0.01), "action_exact": 1.0,
                    "static_measured": finite, "static_corrected": finite,
                    "static_published": theory.power_law_action(
                        500, exponent, mode="as_published"
                    ) / unit,
                }
            )  # fmt: skip
    return {"layers": pd.DataFrame(rows)}


def test_planted_relations_hold():
    numbers = planted(3.0)
    for words in ("smoother at some depths", "faster a layer's spectrum", "has converged"):
        assert outcome(module.EXPERIMENT, numbers, words) == "holds"
    assert outcome(module.EXPERIMENT, numbers, "finite sum") == "holds"
    # The published action lacks the factor k/m, even where the spectrum is a power law.
    assert outcome(module.EXPERIMENT, numbers, "zeta") == "does not hold"


def test_absent_relations_are_reported_as_absent():
    numbers = planted(0.0)
    for words in ("smoother at some depths", "faster a layer's spectrum"):
        assert outcome(module.EXPERIMENT, numbers, words) == "does not hold"
    layers = numbers["layers"]
    off = {"layers": layers.assign(static_measured=layers["static_measured"] / 2)}
    assert outcome(module.EXPERIMENT, off, "finite sum") == "does not hold"
    wrong = {"layers": layers.assign(action=1.1)}
    assert outcome(module.EXPERIMENT, wrong, "has converged") == "does not hold"
    flat = {"layers": layers.assign(static_published=np.nan)}
    assert outcome(module.EXPERIMENT, flat, "zeta").startswith("cannot be judged")
