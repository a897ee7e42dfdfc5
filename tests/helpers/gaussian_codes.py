"""Gaussian activations with a known covariance."""

from __future__ import annotations

import numpy as np
import torch

from polycode_plugins.metrics import CapacityResult

SAMPLES, WIDTH = 4000, 40


def gaussian(variances, samples=SAMPLES, seed=0, rotate=True) -> torch.Tensor:
    """Rows whose covariance has the given eigenvalues, in a random basis."""
    rng = np.random.default_rng(seed)
    variances = np.asarray(variances, dtype=np.float64)
    rows = rng.standard_normal((samples, variances.size)) * np.sqrt(variances)
    if rotate:
        rows = rows @ np.linalg.qr(rng.standard_normal((variances.size, variances.size)))[0]
    return torch.as_tensor(rows)


def power_law(width=WIDTH, exponent=1.0):
    return np.arange(1, width + 1, dtype=np.float64) ** -exponent


def bits(result: CapacityResult) -> np.ndarray:
    """Everything in bits, which no change of unit may move while step and noise are relative."""
    law = result.power_law
    return np.array(
        [
            result.redundancy,
            *result.interval,
            result.entropy,
            result.entropy_naive,
            result.flat_entropy,
            result.unit_entropy,
            result.information,
            result.capacity,
            law.corrected,
            law.as_published,
            law.bits,
        ]
    )
