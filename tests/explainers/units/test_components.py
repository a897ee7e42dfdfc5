"""Principal and independent components as units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import polycode_plugins as pc
from polycode_plugins.explainers import (
    independent,
    principal,
)


def test_components_are_those_of_the_activations():
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([9.0, 4.0, 1.0, 0.5])
    basis = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    x = torch.randn(4000, 4, generator=generator) * scale @ basis.T + 7
    covariance = pc.metrics.Covariance()
    covariance.update(pc.Activations(x, ("batch", "feature")))
    found = principal(covariance, 2)
    assert (found.directions @ basis[:, :2]).abs().diagonal().numpy() == pytest.approx(1, abs=0.01)
    assert found.project(x).mean(dim=0).abs().max() < 1e-2
    sources = torch.distributions.Laplace(0.0, 1.0).sample((6000, 3))
    mixing = torch.randn(3, 3, generator=generator)
    recovered = independent(sources @ mixing, 3, seed=0).project(sources @ mixing)
    r = np.corrcoef(recovered.T.numpy(), sources.T.numpy())[:3, 3:]
    assert np.abs(r).max(axis=0) == pytest.approx(1, abs=0.02)
