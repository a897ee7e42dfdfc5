"""Random projections: directions that the network did not choose."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.units.base import Units

Distribution = Literal["gaussian", "rademacher", "sphere"]
DISTRIBUTIONS = ("gaussian", "rademacher", "sphere")


def projections(
    width: int,
    n: int,
    *,
    seed: int = 0,
    distribution: Distribution = "gaussian",
    norm: float | None = 1.0,
) -> Units:
    """Random directions.

    Args:
        width: features of the site.
        n: how many.
        seed: of the draw; equal seeds give equal directions, whatever `n`.
        distribution: of the entries: "gaussian" N(0, 1/width), "rademacher" +-1/sqrt(width), or
            "sphere", uniform on the sphere (a Gaussian scaled to its length).
        norm: length that each is scaled to, 1 by default as a neuron's is; None leaves it.

    Raises:
        DataError: for an unknown distribution.
    """
    if distribution not in DISTRIBUTIONS:
        raise DataError(
            f"unknown distribution {distribution!r}; choose from {', '.join(DISTRIBUTIONS)}"
        )
    rng = np.random.default_rng([seed, 1])
    if distribution == "rademacher":
        drawn = rng.choice([-1.0, 1.0], size=(n, width)) / np.sqrt(width)
    else:
        drawn = rng.normal(size=(n, width)) / np.sqrt(width)
    length = 1.0 if distribution == "sphere" and norm is None else norm
    if length is not None:
        drawn *= length / np.linalg.norm(drawn, axis=1, keepdims=True)
    origin = {"seed": seed, "distribution": distribution, "norm": length}
    names = tuple(f"projection {i}" for i in range(n))
    made = torch.from_numpy(drawn.astype(np.float32))
    return Units("projection", names, made, torch.zeros(n), origin)
