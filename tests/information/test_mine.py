"""Training a critic."""

from __future__ import annotations

import torch
from gaussian_pairs import gaussian_pair

from polycode_plugins.information import (
    mine,
)
from polycode_plugins.information.bounds import BOUNDS
from polycode_plugins.information.critics import SeparableCritics
from polycode_plugins.information.folds import split


def test_the_value_is_that_of_the_best_weights_not_the_last() -> None:
    """Few samples of a wide pair overfit: the held-out bound falls, the value stays at its best."""
    x, y, _ = gaussian_pair([0.5] + [0.0] * 9, 400, 3)
    folds = split(x, y, folds=4, seed=0, gaussian=False, device="cpu")
    found = mine.fit(
        "mine", folds, seed=0, training=mine.Training(steps=200, patience=100)
    ).estimate
    held_out = found.curve[:, 2]
    assert held_out[-1] < held_out.max() - 0.1  # it did overfit
    assert found.nats > held_out[-1] + 0.1
    assert found.nats > -0.05


def test_a_look_at_averaged_weights_leaves_those_that_are_trained() -> None:
    x, y, _ = gaussian_pair([0.6], 400, 0)
    folds = split(x, y, folds=4, seed=0, gaussian=True, device="cpu")
    critics = SeparableCritics(1, 1, folds.correlations, torch.Generator().manual_seed(0))
    trained = [w.detach().clone() for w in critics.parameters()]
    average = [torch.zeros_like(w) for w in trained]
    kept = mine._Best(critics, average, BOUNDS["mine"], folds)
    kept.look(critics, average, BOUNDS["mine"], folds)
    assert all(torch.equal(w, t) for w, t in zip(critics.parameters(), trained, strict=True))
