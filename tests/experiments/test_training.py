"""Training that is interrupted goes on as if it had not been."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from polycode_plugins.errors import PluginError, StateError
from polycode_plugins.experiments import autoencoder
from polycode_plugins.experiments.training import cosine, train


def test_interrupted_training_goes_on_bit_for_bit(tmp_path, monkeypatch):
    def fitted(path, stop_at=None, steps=30):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

        def loss_of(step):
            if step == stop_at:
                raise KeyboardInterrupt
            x = torch.randn(16, 3)
            return ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()

        losses = train(
            model, optimizer, loss_of, steps, seed=5, path=path, rate=cosine(1e-2, steps), every=5
        )
        return torch.cat([p.detach().flatten() for p in model.parameters()]), losses

    monkeypatch.setattr("polycode_plugins.experiments.training.SAVE_SECONDS", -1.0)
    state = torch.random.get_rng_state()
    whole, losses = fitted(None)
    path = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fitted(path, stop_at=17)
    resumed, more = fitted(path)
    assert torch.equal(whole, resumed)
    assert np.array_equal(losses, more)
    assert losses[-1, 1] < losses[0, 1]
    torch.random.set_rng_state(state)
    path.write_bytes(b"damaged")
    with pytest.raises(StateError, match="damaged"):
        fitted(path)


def test_losses_are_logged_only_when_asked_and_a_missing_package_is_named(tmp_path, monkeypatch):
    assert autoencoder.loss_log("", tmp_path, "a") is None
    with pytest.raises(PluginError, match="tensorboard or wandb"):
        autoencoder.loss_log("tensorbord", tmp_path, "a")
    written = []

    class Writer:
        def __init__(self, folder):
            assert folder == str(tmp_path / "a")

        def add_scalar(self, *args):
            written.append(args)

        def flush(self):
            pass

    class Library:
        SummaryWriter = Writer

        @staticmethod
        def init(**_):
            class Run:
                def log(self, values, step):
                    written.append((*values.items(), step))

            return Run()

    monkeypatch.setattr(autoencoder, "import_module", lambda name: Library)
    autoencoder.loss_log("tensorboard", tmp_path, "a")(3, 1.5)
    autoencoder.loss_log("wandb", tmp_path, "a")(4, 2.5)
    assert written == [("loss", 1.5, 3), (("loss", 2.5), 4)]

    def missing(name):
        raise ImportError("No module named 'wandb'")

    monkeypatch.setattr(autoencoder, "import_module", missing)
    with pytest.raises(PluginError, match="pip install wandb"):
        autoencoder.loss_log("wandb", tmp_path, "a")
