"""Rows that are Gaussian, sparse or heavy-tailed, with one law of variances."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polycode_plugins.activations import Activations
from polycode_plugins.metrics.accumulators import Covariance
from polycode_plugins.metrics.spectrum.priority_sample import PrioritySample

WIDTH = 40
LAW = torch.arange(1, WIDTH + 1, dtype=torch.float64) ** -1.0


def features(kind: str, n: int, generator: torch.Generator) -> Tensor:
    """Independent features of variance 1, [n, WIDTH]; "silent" ones fire in one row of six."""
    normal = torch.randn(n, WIDTH, generator=generator, dtype=torch.float64)
    if kind == "gaussian":
        return normal
    if kind == "laplace":
        uniform = torch.rand(n, WIDTH, generator=generator, dtype=torch.float64) - 0.5
        return -uniform.sign() * (1 - 2 * uniform.abs()).log() / 2**0.5
    fired = (normal - 1).clamp_min(0)
    density, tail = math.exp(-0.5) / (2 * math.pi) ** 0.5, math.erfc(0.5**0.5) / 2
    mean = density - tail
    return fired / (2 * tail - density - mean**2) ** 0.5


def gathered(rows: Tensor, batches: int = 1) -> tuple[Covariance, PrioritySample]:
    covariance, sample = Covariance("samples", "float64"), PrioritySample("samples")
    for numbers in torch.arange(len(rows)).chunk(batches):
        batch = Activations(rows[numbers], ("batch", "feature"), rows=numbers)
        covariance.update(batch)
        sample.update(batch)
    return covariance, sample
