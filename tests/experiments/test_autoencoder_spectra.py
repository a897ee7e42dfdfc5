"""Spectra by depth: planted bends and deviations are found, straight lines are straight."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from verdicts import outcome

import polycode_plugins as pc
from polycode_plugins.experiments import autoencoder_spectra as module
from polycode_plugins.experiments.resnet_vae import HIDDEN

SETTINGS = dataclasses.replace(
    module.EXPERIMENT.settings["smoke"], images=40, epochs=1, networks=1, analysed=40
)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    return module.run(SETTINGS, 0, tmp_path_factory.mktemp("states"))


def test_a_run_has_all_tables_and_repeats_itself(numbers, tmp_path):
    assert numbers["layers"]["site"].tolist() == list(HIDDEN)
    assert numbers["losses"]["loss"].notna().all()
    assert set(numbers["examples"]["kind"]) == {"picture", "reconstruction"}
    first = numbers["spectra"][numbers["spectra"]["depth"] == 0]
    assert first["eigenvalue"].is_monotonic_decreasing
    assert first["eigenvalue"].sum() == pytest.approx(1, abs=0.01)
    again = module.run(SETTINGS, 0, tmp_path)
    for name, table in numbers.items():
        pd.testing.assert_frame_equal(table, again[name], check_exact=True)
    assert module.figure(numbers).axes
    assert outcome(module.EXPERIMENT, numbers, "depends on depth").startswith("cannot be judged")
    assert outcome(module.EXPERIMENT, numbers, "have learnt").startswith("cannot be judged")


def test_filters_are_the_eigenvectors_of_the_channels():
    """A picture whose brightness varies in one corner: so does every channel's eigenvector."""

    class Stem(nn.Module):
        def __init__(self):
            super().__init__()
            self.size = 8
            self.conv = nn.Conv2d(3, 4, 1, bias=False)
            self.relu = nn.ReLU()
            nn.init.constant_(self.conv.weight, 1.0)
            with torch.no_grad():
                self.conv.weight[1] = 2.0

        def forward(self, x):
            return self.relu(self.conv(x))

    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 3, (60, 3, 8, 8), generator=generator).byte()
    pixels[:, :, :2, :2] += torch.randint(0, 200, (60, 1, 1, 1), generator=generator).byte()
    settings = dataclasses.replace(SETTINGS, size=8, channels=4)
    table = module._filters(Stem(), pixels, settings, seed=0)
    first = table[table["vector"] == 0].pivot_table(
        index=["channel", "row"], columns="column", values="weight"
    )
    maps = first.to_numpy().reshape(4, 8, 8)
    corner = np.zeros((8, 8))
    corner[:2, :2] = 1
    for channel, factor in enumerate((1, 2, 1, 1)):
        assert maps[channel] / maps[0, 0, 0] == pytest.approx(factor * corner, abs=0.1)


@pytest.mark.parametrize(("first", "second", "bent"), [(1.0, 1.0, False), (0.8, 3.0, True)])
def test_deviation_and_bend_are_those_planted(first, second, bent):
    ranks = np.arange(1, 201)
    variances = ranks**-first
    variances[50:] = variances[49] * (ranks[50:] / 50) ** -second
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2000, 200, generator=generator, dtype=torch.float64)
    x = x * torch.from_numpy(variances).sqrt()
    options = {"ranks": (1, 200), "seed": 0}
    huber = pc.metrics.Spectrum(fit="huber", **options).measure(x)
    corrected = pc.metrics.Spectrum(**options).measure(x)
    off, bend = module.deviation(huber), module._bend(corrected.power_law)
    chance = module.deviation_by_chance(huber, seed=3)
    assert chance < 0.1
    if bent:
        assert off > 2 * chance
        assert bend == pytest.approx(np.log2(second / first), abs=0.4)
    else:
        assert off == pytest.approx(chance, rel=0.25)
        assert abs(bend) < 0.3


def planted(effect: float) -> dict[str, pd.DataFrame]:
    generator = np.random.default_rng(0)
    rows = [
        {
            "network": network,
            "depth": depth,
            "exponent": 1.5 + effect * 0.1 * depth + generator.normal(0, 0.05),
            "chance": 0.02,
            "deviation": 0.12 + effect * 0.03 * depth + generator.normal(0, 0.01),
            "bend": effect * 0.2 * depth + generator.normal(0, 0.1),
            "explained": effect * 0.9 + 0.02 * network,
        }
        for network in range(4)
        for depth in range(11)
    ]
    return {"layers": pd.DataFrame(rows)}


def test_planted_effects_hold_and_absent_ones_do_not():
    present, absent = planted(1.0), planted(0.0)
    for words in ("depends on depth", "deviate more", "linear code", "have learnt"):
        assert outcome(module.EXPERIMENT, present, words) == "holds"
        assert outcome(module.EXPERIMENT, absent, words) == "does not hold"
    layers = present["layers"].assign(bend=np.nan)
    assert outcome(module.EXPERIMENT, {"layers": layers}, "linear code").startswith("cannot")
