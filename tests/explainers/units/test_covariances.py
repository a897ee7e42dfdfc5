"""Directions that are drawn by a layer's covariance, or against it."""

from __future__ import annotations

import pytest
import torch
from layer_moments import moments

from polycode_plugins.errors import DataError
from polycode_plugins.explainers import covariance_directions

DEVIATIONS = torch.tensor([3.0, 2.0, 1.0, 0.5])


@pytest.fixture
def covariance():
    x = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    return moments(torch.cat([x * DEVIATIONS, torch.zeros(20_000, 1)], dim=1))


@pytest.mark.parametrize(("colouring", "power"), [("coloured", 1), ("whitened", -1)])
def test_directions_have_the_covariance_or_its_inverse(covariance, colouring, power):
    units = covariance_directions(covariance, 4000, colouring=colouring)
    assert units.kind == "covariance"
    assert units.directions.norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    # The fifth feature is constant: nothing is divided by its variance, and nothing reads it.
    assert units.directions[:, 4].abs().max() < 1e-4
    ratios = units.directions[:, :4] / units.directions[:, :1]
    expected = (DEVIATIONS / DEVIATIONS[0]) ** power
    # Of two Gaussians the absolute ratio has its median at that of their deviations.
    assert ratios.abs().median(dim=0).values.numpy() == pytest.approx(expected.numpy(), rel=0.1)


def test_another_colouring_is_refused(covariance):
    with pytest.raises(DataError, match="unknown colouring 'pink'"):
        covariance_directions(covariance, 2, colouring="pink")
