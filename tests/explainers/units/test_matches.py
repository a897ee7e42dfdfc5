"""Random directions that match a neuron's kurtosis and sparsity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis

from polycode_plugins.explainers.units.matches import CALIPER, matches
from polycode_plugins.explainers.units.neurons import neurons

WIDTH = 16


@pytest.fixture
def tokens():
    """Features that fire on 1% to 40% of tokens, and one that never does."""
    g = torch.Generator().manual_seed(0)
    fires = torch.rand(6000, WIDTH, generator=g) < torch.logspace(-2, -0.4, WIDTH)
    values = fires * torch.rand(6000, WIDTH, generator=g)
    values[:, 5] = 0.0
    return values


def shape(read):
    read = read * (1.0 if read.max() >= -read.min() else -1.0)
    return np.log(kurtosis(read, fisher=False)), np.mean(read * 10 < read.max())


def test_a_match_is_within_the_caliper_and_is_no_single_neuron(tokens):
    units = matches(tokens, neurons(WIDTH), "s")
    assert 4 <= len(units) < WIDTH
    assert units.origin["pairs"] == {n: n.replace("matched", "neuron") for n in units.names}
    for name, row in zip(units.names, units.directions, strict=True):
        neuron = int(name.split()[1])
        off = np.subtract(shape((tokens @ row).numpy()), shape(tokens[:, neuron].numpy()))
        assert (np.abs(off) <= np.array(CALIPER) * 1.01).all()
        shares = (row * tokens.std(dim=0)).square()
        assert shares.max() / shares.sum() < 0.51  # two features or more, each as much
    assert len({tuple(r.tolist()) for r in units.directions}) == len(units)
    assert "matched 5" not in units.names


def test_where_nothing_matches_there_are_no_units(tokens):
    tokens = torch.zeros_like(tokens)
    tokens[0] = 1.0
    tokens[:, 1:] += torch.randn(len(tokens), WIDTH - 1)
    assert matches(tokens, neurons(WIDTH, [0]), "s") is None
    assert matches(torch.ones(50, 3), neurons(3), "s") is None
