"""Parts of one analysis, and what they are together."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

import polycode_plugins as pc

ROWS = torch.randn(70, 5, generator=torch.Generator().manual_seed(0)).double()
COUNT = 6
METRICS = [
    pc.metrics.Spectrum(fit="huber", ranks=(1, 500)),
    pc.metrics.Action(kind="static", projections=5),
]


def part(index: int, count: int, **options: object) -> pc.Analysis:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 12), nn.Tanh()).double()
    settings_ = {"seed": 0, "sites": ["1"], "metrics": METRICS, **options}
    return pc.analyze(model, ROWS, batch_size=4, shard=(index, count), **settings_)  # type: ignore[arg-type]


@cache
def whole() -> pc.Analysis:
    return part(0, 1)


@cache
def parts() -> tuple[pc.Analysis, ...]:
    return tuple(part(i, COUNT) for i in range(COUNT))


def same(joined: pc.Analysis, other: pc.Analysis) -> None:
    a, b = joined["1", "spectrum"], other["1", "spectrum"]
    assert abs(a.eigenvalues - b.eigenvalues).max() <= 1e-12 * b.eigenvalues[0]
    assert (a.n_samples, a.width) == (b.n_samples, b.width)
    assert joined["1", "action"].expected == pytest.approx(other["1", "action"].expected, rel=1e-10)
    assert joined.run["rows"]["count"] == len(ROWS)
    assert joined.run["rows"]["digest"] == other.run["rows"]["digest"]
