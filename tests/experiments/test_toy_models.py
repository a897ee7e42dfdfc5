"""Toy models of sparse features."""

from __future__ import annotations

import pytest
import torch

from polycode_plugins.experiments.toy_models import sparse_features, train_toy_models


def test_inputs_have_the_sparsity_asked_for():
    active = torch.tensor([1.0, 0.25])
    x = sparse_features(active, 4000, 10)
    shares = (x > 0).float().mean((1, 2))
    assert shares.tolist() == pytest.approx([1.0, 0.25], abs=0.01)
    assert x[1][x[1] > 0].mean().item() == pytest.approx(0.5, abs=0.02)


def test_a_dense_toy_model_uses_a_dimension_a_feature(tmp_path):
    dense, sparse = train_toy_models(
        torch.tensor([1.0, 0.05]), 12, 4, batch=64, steps=1200, rate=1e-2, anneal=True, seed=0,
        path=tmp_path / "state.safetensors",
    )  # fmt: skip
    assert 4 / (dense**2).sum().item() == pytest.approx(1, abs=0.1)
    assert 4 / (sparse**2).sum().item() < 0.6
