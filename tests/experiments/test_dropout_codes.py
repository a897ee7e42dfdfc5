"""Codes are decoded exactly, and each claim follows what the messages did."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
from verdicts import outcome

from polycode_plugins.experiments import dropout_codes as module


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    settings = dataclasses.replace(
        module.EXPERIMENT.settings["smoke"], sizes=(16, 32, 64), rates=(0.0, 0.3), messages=80
    )
    return module.run(settings, 0, tmp_path_factory.mktemp("states"))


def test_codes_carry_what_theory_says(numbers):
    codes = numbers["codes"]
    sent = codes[codes["symbols"] > 0]
    error = (sent["bits_received"] - sent["bits_expected"]).abs() / sent["bits_sent"]
    assert error.max() < 0.1
    for words in ("monosemantic code carries", "code without redundancy", "recovers from dropout"):
        assert outcome(module.EXPERIMENT, numbers, words) == "holds"
    assert outcome(module.EXPERIMENT, numbers, "lies between") == "holds"
    assert module.figure(numbers).axes


def test_absent_effects_are_reported_as_absent(numbers):
    codes = numbers["codes"].copy()
    robust = codes.assign(whole=codes["messages"])
    fragile = codes.assign(whole=0, bits_received=codes["bits_received"] / 2)
    for frame, words in (
        (robust, "monosemantic code carries"),
        (robust, "code without redundancy"),
        (fragile, "recovers from dropout"),
        (fragile, "tends to"),
    ):
        changed = {"codes": frame, "bounds": numbers["bounds"]}
        assert outcome(module.EXPERIMENT, changed, words) == "does not hold"
    bounds = numbers["bounds"].assign(lower=lambda t: t["lower"] + 0.5)
    changed = {"codes": codes, "bounds": pd.DataFrame(bounds)}
    assert outcome(module.EXPERIMENT, changed, "lies between") == "does not hold"
