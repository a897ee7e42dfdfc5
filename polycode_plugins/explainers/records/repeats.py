"""Texts that occur in several documents, told while they go by."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

_RECENT = 2**16  # kept as a set before they are sorted in


class Repeats:
    """Knows every text that went by, by 64 bits of its hash: 8 bytes for each in the long run.

    Two texts that differ are taken for one with a probability of n^2 / 2^65: 3e-6 for ten million.
    """

    def __init__(self) -> None:
        self._known = np.empty(0, dtype=np.uint64)
        self._recent: set[int] = set()

    def among(self, rows: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """The rows whose text went by before, int64 [repeated].

        Args:
            rows: int64 [batch].
            tokens: int64 [batch, position].
            mask: bool [batch, position], True where a token counts.
        """
        found = []
        for row, ids, counts in zip(rows.tolist(), tokens.numpy(), mask.numpy(), strict=True):
            key = int.from_bytes(
                hashlib.blake2b(ids[counts].tobytes(), digest_size=8).digest(), "little"
            )
            if key in self._recent or self._sorted_in(key):
                found.append(row)
            else:
                self._recent.add(key)
        if len(self._recent) > _RECENT:
            recent = np.fromiter(self._recent, dtype=np.uint64, count=len(self._recent))
            self._known = np.sort(np.concatenate([self._known, recent]))
            self._recent.clear()
        return torch.tensor(found, dtype=torch.int64)

    def _sorted_in(self, key: int) -> bool:
        place = int(np.searchsorted(self._known, np.uint64(key)))
        return place < len(self._known) and int(self._known[place]) == key
