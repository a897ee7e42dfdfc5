"""The control: the same network with its weights shuffled."""

from __future__ import annotations

import pytest
import torch
from planted import NEURONS, Reader, planted_comparison

from polycode_plugins.explainers import (
    random_weights,
)


def test_the_control_shuffles_the_weights_and_puts_them_back():
    model = Reader()
    before = model.read.weight.detach().clone()
    with random_weights(model, seed=0):
        inside = model.read.weight.detach().clone()
    assert not torch.equal(inside, before)
    assert torch.equal(inside.flatten().sort().values, before.flatten().sort().values)
    assert torch.equal(model.read.weight, before)
    with pytest.raises(RuntimeError, match="stop"), random_weights(model):
        raise RuntimeError("stop")
    assert torch.equal(model.read.weight, before)
    comparison = planted_comparison(control=True)
    assert comparison.weights == ["trained", "random"]
    assert len(comparison) == 4 * NEURONS
    assert comparison.contrast(weights="random")[-1].n == (NEURONS, NEURONS)
