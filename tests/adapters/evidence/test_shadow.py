"""Copies that are run on other inputs."""

from __future__ import annotations

import torch
from torch import nn

from polycode_plugins.adapters.evidence.shadow import Shadow


def test_a_copy_computes_what_the_model_does_and_without_values_its_shape():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.GELU()).eval()
    values = torch.randn(3, 4)
    assert torch.equal(Shadow(model).run((values,), {}), model(values))
    found = Shadow(model, "meta").run((values.to("meta"),), {})
    assert found.is_meta
    assert found.shape == values.shape
