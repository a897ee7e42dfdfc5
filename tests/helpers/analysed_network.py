"""A small network, analysed over its blocks."""

from __future__ import annotations

import torch
from torch import nn

import polycode_plugins as pc

# float64, so that a batch of other rows does not round otherwise.
DATA = torch.randn(90, 6, generator=torch.Generator().manual_seed(0)).double()
SPECTRUM = pc.metrics.Spectrum(fit="huber", ranks=(1, 500))


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 16), nn.Tanh()).double()


def analysed(data: torch.Tensor = DATA, model: nn.Module | None = None, **options) -> pc.Analysis:
    return pc.analyze(model or network(), data, SPECTRUM, ["1", "3"], batch_size=8, **options)


def eigenvalues(analysis: pc.Analysis) -> dict[str, torch.Tensor]:
    return {s: torch.from_numpy(analysis[s, "spectrum"].eigenvalues) for s in analysis}


def assert_close(a: pc.Analysis, b: pc.Analysis, tolerance: float) -> None:
    x, y = eigenvalues(a), eigenvalues(b)
    assert x.keys() == y.keys()
    for site in x:
        assert float((x[site] - y[site]).abs().max() / x[site].max()) <= tolerance
