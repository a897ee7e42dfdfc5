"""Random directions that are distributed as the layer's own activations, or undo their covariance.

A projection weighs all features alike. Most variance of a layer lies in few directions, which
random ones hardly see: these differ from projections in that alone.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.units.base import Units
from polycode_plugins.explainers.units.directions import directions
from polycode_plugins.metrics.accumulators import Covariance

Colouring = Literal["coloured", "whitened"]
COLOURINGS = ("coloured", "whitened")
_NONE = 1e-6  # of the largest eigenvalue: a direction of so little variance is not divided by it


def covariance_directions(
    covariance: Covariance, n: int, *, seed: int = 0, colouring: Colouring = "coloured"
) -> Units:
    """Random directions of length 1, drawn by a layer's covariance C.

    Args:
        covariance: of the site.
        n: how many.
        seed: of the draw.
        colouring: "coloured" draws N(0, C): directions as activations are, centred. "whitened"
            draws N(0, C^-1): such directions read random directions of the whitened activations,
            in which each direction of variance counts alike.

    Raises:
        DataError: for another colouring, or fewer than two samples.
    """
    if colouring not in COLOURINGS:
        raise DataError(f"unknown colouring {colouring!r}; choose from {', '.join(COLOURINGS)}")
    values, vectors = covariance.eigenvectors()
    kept = values > _NONE * values[0]
    values, vectors = values[kept].cpu(), vectors[kept].cpu()
    rng = np.random.default_rng([seed, 6])
    drawn = torch.from_numpy(rng.normal(size=(n, len(values))))
    drawn *= values.sqrt() if colouring == "coloured" else values.rsqrt()
    rows = drawn @ vectors
    rows /= rows.norm(dim=1, keepdim=True)
    origin = {
        "seed": seed,
        "colouring": colouring,
        "n_samples": covariance.n_samples,
        "eigenvalues": int(kept.sum()),
    }
    return directions(rows, kind="covariance", origin=origin)
