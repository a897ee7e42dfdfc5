"""Some units out of many of one's own: directions, features of an autoencoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.units.base import Units


def draw(units: Units, n: int | Sequence[int], seed: int) -> Units:
    """`n` of the units without replacement, in their order; all where there are no more.

    Args:
        units: of one's own.
        n: how many, or the features' numbers.
        seed: of the draw.

    Raises:
        DataError: for a feature that does not exist.
    """
    if not isinstance(n, int):
        wrong = [i for i in n if not 0 <= i < len(units)]
        if wrong:
            raise DataError(
                f"the {units.kind} units have numbers 0 to {len(units) - 1}; {wrong[0]} is not one"
            )
        return units.select(list(n))
    if n >= len(units):
        return units
    chosen = np.random.default_rng([seed, 3]).choice(len(units), n, replace=False)
    return units.select(np.sort(chosen).tolist())
