"""Neurons: single features of a site."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.units.base import Units


def neurons(width: int, n: int | Sequence[int] | None = None, *, seed: int = 0) -> Units:
    """Single features of a site: all of them, `n` drawn without replacement, or those listed.

    Raises:
        DataError: for a neuron that does not exist.
    """
    if n is None or (isinstance(n, int) and n >= width):
        chosen = np.arange(width)
    elif isinstance(n, int):
        chosen = np.sort(np.random.default_rng([seed, 0]).choice(width, n, replace=False))
    else:
        chosen = np.asarray(list(n), dtype=np.int64)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < width):
            raise DataError(f"the site has neurons 0 to {width - 1}; {chosen.max()} is not one")
    index = torch.from_numpy(np.asarray(chosen, dtype=np.int64))
    directions = torch.zeros(len(chosen), width)
    directions[torch.arange(len(chosen)), index] = 1
    origin = {"of": width, "seed": seed if isinstance(n, int) else None}
    names = tuple(f"neuron {i}" for i in chosen)
    return Units("neuron", names, directions, torch.zeros(len(chosen)), origin, index)
