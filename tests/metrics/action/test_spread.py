"""Moments of vectors that come in batches are those of all at once."""

from __future__ import annotations

import pytest
import torch

from polycode_plugins.metrics.action.spread import Spread


def test_batches_and_merges_have_the_moments_of_the_whole():
    values = torch.randn(60, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    parts = [Spread() for _ in range(3)]
    for spread, part in zip(parts, values.split([1, 30, 29]), strict=True):
        spread.take(part[:7])
        spread.take(part[7:])  # none of them, for the first
    whole = Spread()
    for part in parts:
        whole.merge(part)
    whole.merge(Spread())
    assert whole.count == 60
    assert torch.allclose(whole.mean, values.mean(dim=0))
    assert whole.variance() == pytest.approx(float(values.var(dim=0).sum()))
    assert parts[0].variance() == 0
    assert torch.equal(parts[0].mean, values[0])
