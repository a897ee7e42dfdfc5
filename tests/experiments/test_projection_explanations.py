"""Explanation scores: planted differences between neurons and projections are found."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from verdicts import outcome, verdict

from polycode_plugins.experiments import projection_explanations as module

NEAR, FAR = "as well as single neurons", "complement those of neurons"


def test_a_run_scores_neurons_and_projections(tmp_path):
    pytest.importorskip("transformer_lens")
    settings = dataclasses.replace(module.EXPERIMENT.settings["smoke"], units=3, windows=120)
    numbers = module.run(settings, 0, tmp_path)
    units = numbers["units"]
    assert units.groupby(["depth", "kind"]).size().tolist() == [3, 3, 3, 3]
    assert units["correlation"].between(-1, 1).all()
    assert (units["oracle"] >= units["correlation"] - 0.1).mean() > 0.9
    assert numbers["layers"]["von_neumann_ratio"].between(0, 4).all()
    assert module.figure(numbers).axes
    assert outcome(module.EXPERIMENT, numbers, "the trained network's").startswith("cannot be")
    assert outcome(module.EXPERIMENT, numbers, "smoother a layer").startswith("cannot be judged")


def planted(
    gain: float, lead: float, control: float, slope: float, *, same: bool = False
) -> dict[str, pd.DataFrame]:
    """Scores of 40 units of each kind in each of 6 layers, whose smoothness rises with depth.

    Args:
        gain: of a projection's own explanation over another's.
        lead: of neurons over projections.
        control: of the trained network over that in random order.
        slope: of scores by layer.
        same: whether projections are explained in the words of neurons.
    """
    generator = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    rows = []
    for weights in ("trained", "random"):
        for depth in range(6):
            said = [" ".join("".join(generator.choice(letters, 6)) for _ in range(5))
                    for _ in range(80)]  # fmt: skip
            for i in range(80):
                kind = "neuron" if i < 40 else "projection"
                score = 0.4 + slope * depth + (lead if kind == "neuron" else 0)
                score -= control if weights == "random" else 0
                rows.append(
                    {
                        "weights": weights, "depth": depth, "kind": kind,
                        "explanation": "tokens with level: " + said[i % 40 if same else i],
                        "correlation": score + generator.normal(0, 0.1),
                        "shuffled": score - gain + generator.normal(0, 0.1),
                    }
                )  # fmt: skip
    layers = pd.DataFrame({"depth": range(6), "von_neumann_ratio": 2 - 0.1 * np.arange(6)})
    return {"units": pd.DataFrame(rows), "layers": layers}


def test_planted_effects_hold_and_absent_ones_do_not():
    present = planted(gain=0.3, lead=0.0, control=0.3, slope=0.05)
    absent = planted(gain=0.0, lead=0.2, control=0.0, slope=-0.05, same=True)
    words = ("can be explained", NEAR, FAR, "smoother a layer", "the trained network's")
    for claim in words:
        assert outcome(module.EXPERIMENT, present, claim) == "holds"
        assert outcome(module.EXPERIMENT, absent, claim) == "does not hold"


def test_words_of_the_form_do_not_count():
    shared = verdict(module.EXPERIMENT, planted(0.3, 0, 0.3, 0), FAR).effect
    assert shared is not None
    assert shared.value < 0.01
    same = verdict(module.EXPERIMENT, planted(0.3, 0, 0.3, 0, same=True), FAR).effect
    assert same is not None
    assert same.value == 1


def test_units_without_a_score_are_left_out():
    numbers = planted(0.3, 0.0, 0.3, 0.05)
    units = numbers["units"].copy()
    units.loc[units.index[::7], ["correlation", "shuffled"]] = np.nan
    assert outcome(module.EXPERIMENT, {**numbers, "units": units}, "can be explained") == "holds"
    only = {**numbers, "units": units[units["kind"] == "projection"]}
    assert outcome(module.EXPERIMENT, only, NEAR).startswith("cannot be judged")
