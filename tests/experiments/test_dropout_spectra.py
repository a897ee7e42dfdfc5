"""Spectra by dropout rate: planted trends are found, absent ones are not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from verdicts import outcome

from polycode_plugins.errors import DataError
from polycode_plugins.experiments import dropout_spectra as module
from polycode_plugins.experiments.resnet_vae import HIDDEN


def test_a_run_has_every_rate_and_repeats_itself(tmp_path):
    settings = dataclasses.replace(
        module.EXPERIMENT.settings["smoke"],
        images=40, epochs=1, networks=1, analysed=40, rates=(0.0, 0.4),
    )  # fmt: skip
    numbers, again = (module.run(settings, 0, _made(tmp_path / name)) for name in "ab")
    for name, table in numbers.items():
        pd.testing.assert_frame_equal(table, again[name], check_exact=True)
    assert len(numbers["layers"]) == 2 * len(HIDDEN)
    assert numbers["noise"].groupby("rate")["noise"].apply(list).tolist() == [[0.0, 0.4]] * 2
    first = numbers["losses"].groupby("rate")["loss"].first()
    assert first[0.0] != first[0.4]
    assert module.figure(numbers).axes
    assert outcome(module.EXPERIMENT, numbers, "less linear").startswith("cannot be judged")


def test_a_network_that_has_collapsed_is_named_with_the_way_out(tmp_path, monkeypatch):
    def collapsed(settings, training, rate, network, seed, folder):
        model, losses = trained(settings, training, rate, network, seed, folder)
        if rate:
            with torch.no_grad():
                for parameter in model.get_submodule(HIDDEN[-2].rpartition(".")[0]).parameters():
                    parameter.zero_()
        return model, losses

    trained = module.trained
    monkeypatch.setattr(module, "trained", collapsed)
    settings = dataclasses.replace(
        module.EXPERIMENT.settings["smoke"],
        images=40, epochs=1, networks=1, analysed=40, rates=(0.0, 0.4),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"network 0 trained at dropout 0\.4 .*--set rates=0\)"):
        module.run(settings, 0, _made(tmp_path / "run"))


def _made(folder):
    folder.mkdir()
    return folder


def planted(effect: float) -> dict[str, pd.DataFrame]:
    generator = np.random.default_rng(0)
    layers, noise = [], []
    for network in range(4):
        for rate in (0.0, 0.2, 0.4, 0.6, 0.8):
            layers += [
                {
                    "network": network, "rate": rate, "depth": depth,
                    "chance": 0.05,
                    "deviation": 0.15 + effect * 0.3 * rate + generator.normal(0, 0.01),
                    "effective_rank": 100 * 2 ** (-effect * rate + generator.normal(0, 0.05)),
                }
                for depth in range(11)
            ]  # fmt: skip
            heard = effect * rate * 0.5 + generator.normal(0, 0.02)
            noise.append({"network": network, "rate": rate, "noise": 0.4, "explained": heard})
    return {"layers": pd.DataFrame(layers), "noise": pd.DataFrame(noise)}


def test_planted_trends_hold_and_opposite_ones_do_not():
    for effect, expected in ((1.0, "holds"), (-1.0, "does not hold")):
        numbers = planted(effect)
        for words in ("less linear", "promotes redundancy", "more robust"):
            assert outcome(module.EXPERIMENT, numbers, words) == expected


def test_no_trend_is_no_trend():
    for words in ("less linear", "promotes redundancy", "more robust"):
        assert outcome(module.EXPERIMENT, planted(0.0), words) != "holds"
