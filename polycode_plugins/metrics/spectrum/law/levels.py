"""Neighbouring eigenvalues of a population that may be taken as one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL = 0.2  # of the spread that samples give an eigenvalue


@dataclass(frozen=True, eq=False)
class Levels:
    """Neighbouring eigenvalues of a population that are taken as one.

    begins: [levels] first rank, from 1. counts: [levels] how many ranks. width: their sum.
    """

    begins: NDArray[np.int64]
    counts: Array
    width: int

    @property
    def ranks(self) -> Array:
        """[levels] middle rank."""
        return np.asarray(self.begins + (self.counts - 1) / 2)

    def of(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """The level in which each rank is."""
        return np.asarray(np.searchsorted(self.begins, ranks, side="right") - 1)

    def mean(self, values: Array) -> Array:
        """[levels, ..] means over the ranks of each level of [width, ..]."""
        sums = np.add.reduceat(values, self.begins - 1, axis=0)
        return np.asarray(sums / self.counts.reshape(-1, *[1] * (values.ndim - 1)))

    def spread(self, weights: Array) -> Array:
        """[.., width] weights of levels, dealt out evenly to their ranks."""
        return np.repeat(weights / self.counts, self.counts.astype(np.int64), axis=-1)


def every_rank(width: int) -> Levels:
    """Each eigenvalue a level of its own."""
    return Levels(np.arange(1, width + 1), np.ones(width), width)


def levels(logs: Array, dof: float, edges: NDArray[np.int64]) -> Levels:
    """As few levels as tell no other sample spectrum.

    Samples spread an eigenvalue over about 2 (j / s n)^1/2 of its logarithm, where j ranks stand
    above and s is the slope of log eigenvalue on log rank; a level is a small part of that.

    logs: [width] log eigenvalues, descending for the most part. edges: ranks where a level begins
    in any case.
    """
    width = len(logs)
    order = np.arange(1.0, width + 1)
    fall = np.maximum(-np.gradient(logs), 1e-12) if width > 1 else np.ones(1)
    spread = 2 * np.sqrt(1 / (fall * dof))
    # Ranks in a level; those that differ in nothing may all be one, but not where there are few.
    size = np.minimum(LEVEL * spread / fall, order / 16)
    begins = [1]
    forced = iter(np.append(np.unique(edges[(edges > 1) & (edges <= width)]), width + 1).tolist())
    stop = next(forced)
    while True:
        at = begins[-1]
        following = min(at + max(1, int(size[at - 1])), stop)
        if following > width:
            break
        if following == stop:
            stop = next(forced)
        begins.append(following)
    found = np.array(begins)
    return Levels(found, np.diff(np.append(found, width + 1)).astype(np.float64), width)
