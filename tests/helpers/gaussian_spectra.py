"""Sample spectra of Gaussian rows whose population is known."""

from __future__ import annotations

from functools import cache

import numpy as np


def power_law(width: int, exponent: float) -> np.ndarray:
    return np.arange(1.0, width + 1) ** -exponent


def eigenvalues(rows: np.ndarray) -> np.ndarray:
    """Of the centred covariance of rows [n, width], descending, those that can be non-zero."""
    n, width = rows.shape
    rows = rows - rows.mean(axis=0)
    square = rows.T @ rows if n > width else rows @ rows.T
    return np.linalg.eigvalsh(square)[::-1][: min(width, n - 1)] / (n - 1)


def spectrum(population: np.ndarray, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, n, len(population)])
    return eigenvalues(rng.standard_normal((n, len(population))) * np.sqrt(population))


@cache
def spectra(width: int, exponent: float, n: int, seeds: int) -> tuple[np.ndarray, ...]:
    """Of exact power laws, one for each seed."""
    return tuple(spectrum(power_law(width, exponent), n, seed) for seed in range(seeds))
