"""The autoencoder: dropout after every ReLU, training that goes on, what comes through noise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from polycode_plugins.errors import DataError, ModelError
from polycode_plugins.experiments import autoencoder, training
from polycode_plugins.experiments.autoencoder import SMOKE, Inputs, Training
from polycode_plugins.experiments.resnet_vae import negative_elbo

TINY = Training(**{**SMOKE, "images": 40, "epochs": 3})


def test_pictures_come_from_a_seed():
    one, two, other = (autoencoder.pictures("embedded", 10, 16, seed) for seed in (0, 0, 1))
    assert one.shape == (10, 3, 16, 16)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert autoencoder.as_input(one, 32).shape == (10, 3, 32, 32)
    assert [len(x) for x in Inputs(one, 16, batch=4)] == [4, 4, 2]


def test_too_small_a_folder_is_an_error(tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    assert autoencoder.pictures(str(tmp_path), 1, 16, 0).shape == (1, 3, 16, 16)
    with pytest.raises(DataError, match="holds 1 pictures, and 2"):
        autoencoder.pictures(str(tmp_path), 2, 16, 0)


def test_training_learns_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_SECONDS", -1.0)
    pixels = autoencoder.pictures("embedded", TINY.images, TINY.size, 0)
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    whole, losses = autoencoder.trained(TINY, pixels, 0.2, 0, 0, tmp_path / "whole")
    assert losses[-1, 1] < losses[0, 1]
    steps = []

    def interrupted(*args):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return negative_elbo(*args)

    with monkeypatch.context() as patch:
        patch.setattr(autoencoder, "negative_elbo", interrupted)
        with pytest.raises(KeyboardInterrupt):
            autoencoder.trained(TINY, pixels, 0.2, 0, 0, tmp_path / "broken")
    resumed, more = autoencoder.trained(TINY, pixels, 0.2, 0, 0, tmp_path / "broken")
    assert np.array_equal(losses, more)
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)


def test_networks_differ_by_number_and_begin_alike_at_all_rates():
    def first(dropout, number):
        return autoencoder.made(TINY, dropout, number, seed=0).conv1.weight

    assert torch.equal(first(0.0, 0), first(0.8, 0))
    assert not torch.equal(first(0.0, 0), first(0.0, 1))
    with pytest.raises(DataError, match="64 channels"):
        autoencoder.made(dataclasses.replace(TINY, pretrained=True), 0.0, 0, 0)
    with pytest.raises(ModelError, match="device 'nowhere' cannot be used"):
        autoencoder.made(dataclasses.replace(TINY, device="nowhere"), 0.0, 0, 0)


def test_what_comes_through_dropout_is_measured_and_nothing_stays_changed():
    class Half(nn.Module):
        """Reproduces a picture; dropout of its bright half makes pixels 1/2."""

        def __init__(self):
            super().__init__()
            self.size = 4
            self.drop = nn.Dropout(0.1)
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return (torch.logit(self.drop(x).clamp(0.01, 0.99)),)

    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 120, (200, 3, 4, 4), generator=generator).byte()
    model = Half()
    whole = autoencoder.explained(model, pixels)
    lossy = autoencoder.explained(model, pixels, 0.5)
    assert whole > 0.999
    assert lossy < 0
    assert autoencoder.explained(model, pixels, 0.5) == lossy
    assert model.drop.p == 0.1
    assert not model.drop.training
