"""Networks that read digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polycode_plugins.experiments.digit_networks import fit, held_out


def test_the_same_seed_trains_the_same_network():
    x = torch.rand(2, 30, 4)
    first, again, other = (
        fit(x, (x > 0.5).float(), width=16, batch=16, steps=50, rate=1e-2, seed=seed)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))


def test_held_out_digits_are_told_where_they_can_be():
    generator = np.random.default_rng(0)
    y = (generator.random((400, 3)) < [0.5, 0.5, 0.9]).astype(np.float32)
    x = np.stack([3 * y[:, 0] + 1, generator.normal(size=400), np.zeros(400)], axis=1)
    told = held_out(x.astype(np.float32), y, width=16, batch=64, steps=200, rate=1e-2, seed=0)
    assert told.shape == (4, 100, 3)
    share = told.float().mean((0, 1)).tolist()
    assert share[0] == 1
    assert share[1] == pytest.approx(0.5, abs=0.1)
