"""Planted phases are judged as what they are, and trained ones come near the closed form."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from verdicts import outcome, verdict

from polycode_plugins import theory
from polycode_plugins.experiments import kurtosis_phase as module

RATIOS, KURTOSIS = np.geomspace(1 / 8, 8, 13), np.geomspace(2, 36, 21)


def planted(shares):
    """Tables as if both features shared where `shares(ratio, kurtosis)`, in all trained models."""
    ratio, kurtosis = (grid.ravel() for grid in np.meshgrid(RATIOS, KURTOSIS, indexing="ij"))
    tables = []
    for name in ("theory", "quadratic", "ReLU"):
        rule = shares if name != "theory" else closed_form
        alone = np.where(ratio > 1, "monosemantic", "ignored")
        phase = np.where(rule(ratio, kurtosis), "polysemantic", alone)
        capacity = np.select([phase == "ignored", phase == "monosemantic"], [0.0, 1.0], 0.5)
        table = {"model": name, "ratio": ratio, "kurtosis": kurtosis, "capacity_b": capacity}
        tables.append(pd.DataFrame({**table, "phase_b": phase}))
    return {"phases": pd.concat(tables)}


def closed_form(ratio, kurtosis):
    return kurtosis > 1 + 2 * np.maximum(ratio, 1 / ratio)


def never(ratio, kurtosis):
    return np.zeros(ratio.shape, dtype=bool)


def always(ratio, kurtosis):
    return ~never(ratio, kurtosis)


def test_the_published_boundary_is_told_from_another():
    def twice_as_far(ratio, kurtosis):
        return kurtosis > 1 + 4 * np.maximum(ratio, 1 / ratio)

    for rule, expected in ((closed_form, "holds"), (twice_as_far, "does not hold")):
        numbers = planted(rule)
        assert outcome(module.EXPERIMENT, numbers, "k > 1 + 2 max") == expected
        assert outcome(module.EXPERIMENT, numbers, "trained phases are those") == expected
        assert outcome(module.EXPERIMENT, numbers, "boundary of the quadratic") == expected
    slope = verdict(module.EXPERIMENT, planted(twice_as_far), "k > 1 + 2 max").effect
    assert slope.value == pytest.approx(4, rel=0.1)
    found = verdict(module.EXPERIMENT, planted(never), "k > 1 + 2 max")
    assert found.outcome == "cannot be judged at this scale"


@pytest.mark.parametrize("name", ["quadratic", "ReLU"])
def test_absent_effects_are_reported_as_absent(name):
    for words, rule in (
        (f"ignored, polysemantic or monosemantic ({name})", never),
        (f"wider the importances that share ({name})", always),
        (f"up to the kurtosis of a Gaussian variable, 3 ({name})", always),
    ):
        assert outcome(module.EXPERIMENT, planted(closed_form), words) == "holds"
        assert outcome(module.EXPERIMENT, planted(rule), words) == "does not hold"
    words = f"that is ignored ({name})"
    assert outcome(module.EXPERIMENT, planted(closed_form), words) == "holds"
    swapped = planted(closed_form)["phases"]
    other = {"ignored": "monosemantic", "monosemantic": "ignored", "polysemantic": "polysemantic"}
    swapped["phase_b"] = swapped["phase_b"].map(other)
    assert outcome(module.EXPERIMENT, {"phases": swapped}, words) == "does not hold"


def test_onset_is_where_most_points_agree():
    k = np.array([2.0, 4, 8, 16, 32])
    assert module.onset(k, [False, False, True, True, True]) == pytest.approx(32**0.5)
    assert module.onset(k, [False, True, False, True, True]) in (
        pytest.approx(8**0.5),
        pytest.approx(128**0.5),
    )
    assert np.isnan(module.onset(k, [False] * 5))
    assert np.isnan(module.onset(k, [True] * 5))


def test_trained_phases_are_those_of_the_closed_form(tmp_path):
    settings = dataclasses.replace(
        module.EXPERIMENT.settings["smoke"], ratios=5, kurtosis=7, restarts=1
    )
    numbers = module.run(settings, 0, tmp_path)
    phases = numbers["phases"].set_index(["ratio", "kurtosis"])
    trained, ideal = (phases[phases["model"] == name] for name in ("quadratic", "theory"))
    # Where the closed form is not within a fifth of its boundary, training has to agree.
    k, ratio = (ideal.index.get_level_values(i).to_numpy() for i in (1, 0))
    clear = np.abs(np.log(k / (1 + 2 * np.maximum(ratio, 1 / ratio)))) > 0.2
    assert clear.sum() > 20
    assert (trained["phase_b"] == ideal["phase_b"])[clear].mean() > 0.95
    assert (trained["capacity_b"] - ideal["capacity_b"])[clear].abs().mean() < 0.02
    ideal_b = theory.optimal_allocation([ratio[-1] ** -0.5, ratio[-1] ** 0.5], k[-1], 1)[1]
    assert ideal["capacity_b"].iloc[-1] == pytest.approx(ideal_b)
    assert module.figure(numbers).axes
