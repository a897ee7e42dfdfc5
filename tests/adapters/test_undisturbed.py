"""A guest leaves a model, its buffers and everybody's random numbers exactly as they were found."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from capture_helpers import Mean, condition_of, random_states, streamed
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.adapters.base import Batch
from polycode_plugins.adapters.module import ModuleAdapter
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.errors import DataError

ROWS = torch.randn(23, 6, generator=torch.Generator().manual_seed(2))


class Drawing(nn.Module):
    """Draws from every global generator, and counts its calls in any mode."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = self.last + random.random() + float(np.random.rand())  # noqa: NPY002
        return self.drop(self.norm(self.linear(x + torch.rand(()))))


@pytest.mark.parametrize(
    ("mode", "train_mode"),
    [("train", False), ("train", True), ("eval", False), ("mixed", False), ("mixed", True)],
)
def test_everything_is_left_as_it_was_found(mode, train_mode):
    model = Drawing().train(mode != "eval")
    if mode == "mixed":
        model.norm.eval()
    model.linear.bias.requires_grad_(False)
    model(ROWS).sum().backward()
    before = condition_of(model)
    pc.analyze(model, ROWS, Mean(), ["linear", "drop"], train_mode=train_mode, batch_size=5)
    streamed(ModuleAdapter(model), ROWS, "drop", train_mode=train_mode)
    ModuleAdapter(model).sites(Batch(ROWS, rows=torch.arange(23)))
    assert condition_of(model) == before
    model(ROWS)
    assert condition_of(model) != before  # the check can fail


def test_a_backward_pass_that_is_pending_still_works():
    model = Drawing().train()
    loss = model(ROWS).sum()
    mean = model.norm.running_mean.clone()
    pc.analyze(model, ROWS, Mean(), "linear", train_mode=True)
    assert torch.equal(model.norm.running_mean, mean)
    loss.backward()  # holds the running statistics


def test_training_mode_draws_dropout_and_draws_it_again_the_same():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Dropout(0.5)).train()
    adapter = ModuleAdapter(model)
    first = streamed(adapter, ROWS, "2", train_mode=True, seed=1)["2"]
    torch.rand(9)
    assert torch.equal(streamed(adapter, ROWS, "2", train_mode=True, seed=1)["2"], first)
    assert not torch.equal(streamed(adapter, ROWS, "2", train_mode=True, seed=2)["2"], first)
    assert not torch.equal(streamed(adapter, ROWS, "2", seed=1)["2"], first)


class Boom(Exception):
    pass


@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["model", "sink"])
def test_nothing_is_left_after_an_error(where, error):
    model = Drawing().train()

    def fail(*_: Any) -> None:
        raise error

    own = model.norm.register_forward_hook(fail) if where == "model" else None
    before = condition_of(model)
    adapter = ModuleAdapter(model)
    example = None if where == "model" else Batch(ROWS, rows=torch.arange(23))
    sites = adapter.resolve(["linear", "drop"], example)
    with pytest.raises(error), undisturbed(model):
        adapter.run(Batch(ROWS, rows=torch.arange(23)), sites, fail if where == "sink" else print)
    assert condition_of(model) == before
    if own is not None:
        with pytest.raises(error):
            pc.analyze(model, ROWS, Mean(), "linear")
        assert condition_of(model) == before
        own.remove()
    # The next use is not affected.
    assert len(streamed(adapter, ROWS, "linear")["linear"]) == 23


def test_the_random_state_of_other_libraries_is_seen_by_the_check():
    before = random_states()
    np.random.rand()  # noqa: NPY002
    assert random_states() != before


def test_train_mode_of_a_model_in_evaluation_mode_is_an_error():
    with pytest.raises(DataError, match=r"evaluation mode.*model\.train\(\)"):
        pc.analyze(nn.Linear(6, 3).eval(), ROWS, Mean(), train_mode=True)
