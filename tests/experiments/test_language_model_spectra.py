"""Spectra and trajectories of a language model: what was planted in the tables is found."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from verdicts import outcome

from polycode_plugins.errors import DataError
from polycode_plugins.experiments import language_model_spectra as module

SETTINGS = dataclasses.replace(
    module.EXPERIMENT.settings["smoke"],
    sites="blocks.[05].hook_resid_post", documents=60, groups=1, followed=2, projections=40,
)  # fmt: skip


def test_a_run_measures_layers_and_follows_texts(tmp_path):
    pytest.importorskip("transformer_lens")
    numbers = module.run(SETTINGS, 0, tmp_path)
    layers = numbers["layers"]
    assert layers["site"].tolist() == ["blocks.0.hook_resid_post", "blocks.5.hook_resid_post"]
    assert (layers["width"] == 128).all()
    assert (layers["tokens"] > 1000).all()
    assert numbers["paths"]["text"].tolist() == [0, 0, 1, 1]
    tokens = numbers["tokens"]
    assert len(tokens) == 2 * numbers["paths"]["tokens"].iloc[0]
    assert "<|endoftext|>" not in set(tokens["token"])
    # The path in the table is the one whose smoothness is.
    known = numbers["paths"].query("text == 0").set_index("depth")["smallest"]
    for depth, rows in tokens.groupby("depth"):
        found = known[depth]
        assert module.von_neumann(rows["projection"].to_numpy()) == pytest.approx(found)
    assert module.figure(numbers).axes
    with pytest.raises(DataError, match="documents, and ten for each"):
        module.run(dataclasses.replace(SETTINGS, documents=10**6), 0, tmp_path)


def test_smoothness_of_known_paths():
    generator = np.random.default_rng(0)
    assert module.von_neumann(generator.normal(size=20_000)) == pytest.approx(2, abs=0.03)
    assert module.von_neumann(np.sin(np.linspace(0, 6, 1000))) < 0.001
    assert module.von_neumann(np.tile([1.0, -1.0], 500)) == pytest.approx(4, rel=0.01)


def planted(effect: float) -> dict[str, pd.DataFrame]:
    generator = np.random.default_rng(0)
    layers = [
        {
            "group": group, "depth": depth,
            "exponent": 2 + effect * 0.3 * depth + generator.normal(0, 0.1),
            "von_neumann": 1.5 + effect * 0.1 * depth + generator.normal(0, 0.03),
        }
        for group in range(5) for depth in range(6)
    ]  # fmt: skip
    paths = [
        {
            "text": text, "depth": depth,
            "smallest": 1.8 - effect * 0.8 + generator.normal(0, 0.2),
            "shuffled": 1.8 + generator.normal(0, 0.2),
        }
        for text in range(20) for depth in range(6)
    ]  # fmt: skip
    return {"layers": pd.DataFrame(layers), "paths": pd.DataFrame(paths)}


def test_planted_effects_hold_and_absent_ones_do_not():
    present, absent = planted(1.0), planted(0.0)
    for words in ("depends on depth", "So does the smoothness", "follows a text smoothly"):
        assert outcome(module.EXPERIMENT, present, words) == "holds"
        assert outcome(module.EXPERIMENT, absent, words) == "does not hold"
    assert outcome(module.EXPERIMENT, present, "not that of choosing") == "holds"
    assert outcome(module.EXPERIMENT, absent, "not that of choosing") != "holds"
    assert outcome(module.EXPERIMENT, planted(-1.0), "not that of choosing") == "does not hold"
