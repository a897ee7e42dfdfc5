"""Texts drawn at random from a stream, the same for any batch size, with the site's activations."""

from __future__ import annotations

from bisect import insort
from operator import itemgetter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class RandomTexts:
    """`n` random texts of different documents, with everything that any unit reads off them.

    Each row has a number that depends on the seed and the row alone, and the `n` rows with the
    lowest numbers are kept, one a document. Memory: n x positions x width values.

    Attributes:
        rows, documents: of the texts kept, in the order of their numbers.
        activations: one tensor [positions, width] each, where positions are those that count.
    """

    def __init__(self, n: int, seed: int) -> None:
        self._n = n
        self._seed = seed
        self._held: list[tuple[int, int, int, Tensor]] = []

    def update(self, values: Tensor, mask: Tensor, rows: Tensor, documents: Tensor) -> None:
        """Take in a batch: values [batch, positions, width], mask, rows, documents [batch]."""
        row, document = rows.tolist(), documents.tolist()
        numbers = numbered(np.asarray(row), self._seed)
        for i in np.argsort(numbers):
            number = int(numbers[i])
            if len(self._held) == self._n and number >= self._held[-1][0]:
                return
            twin = next((j for j, h in enumerate(self._held) if h[2] == document[i]), None)
            if twin is not None:
                if self._held[twin][0] <= number:
                    continue
                del self._held[twin]
            kept = values[i][mask[i]].detach().float().clone()
            insort(self._held, (number, row[i], document[i], kept), key=itemgetter(0))
            del self._held[self._n :]

    @property
    def rows(self) -> list[int]:
        """The rows kept."""
        return [h[1] for h in self._held]

    @property
    def documents(self) -> list[int]:
        """Their documents."""
        return [h[2] for h in self._held]

    @property
    def activations(self) -> list[Tensor]:
        """float32 [positions, width] of each."""
        return [h[3] for h in self._held]

    def stacked(self) -> tuple[Tensor, list[int]]:
        """All positions of all texts below each other, and the length of each text."""
        lengths = [len(a) for a in self.activations]
        return torch.cat(self.activations), lengths


def numbered(rows: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """One uniform 64-bit number per row (SplitMix64 of seed and row)."""
    with np.errstate(over="ignore"):
        z = rows.astype(np.uint64) + np.uint64(seed % 2**32) * np.uint64(0x100000001B3)
        z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))
