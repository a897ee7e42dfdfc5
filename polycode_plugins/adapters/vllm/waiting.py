"""Rows that wait until their text is whole, in one pool for each site.

A statistic such as the action is of paths, and what is kept of a text depends on its place in it,
so that a text has to arrive in one piece. The parts of it are copied here as they come (which also
saves them from operations in place), under slots that are used again: what waits is at most what
is under way and what has ended since the last delivery, whatever the length of the stream.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from polycode_plugins.errors import DataError

_FIRST = 1024  # slots


class Waiting:
    """Pools of rows, one for each key, with slots in common.

    Args:
        room: bytes that all pools may take.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._size = 0
        self._free: list[int] = []
        self._pools: dict[str, Tensor] = {}

    @property
    def held(self) -> int:
        """Slots in use."""
        return self._size - len(self._free)

    def nbytes(self) -> int:
        """Bytes of all pools."""
        return sum(pool.nbytes for pool in self._pools.values())

    def __contains__(self, key: str) -> bool:
        return key in self._pools

    def crowded(self, count: int) -> bool:
        """Whether `count` rows more would take all of the room, or more than it."""
        return count > len(self._free) and 2 * self.nbytes() > self.room

    def slots(self, count: int) -> list[int]:
        """Slots for `count` rows more."""
        if count > len(self._free):
            size = max(_FIRST, 2 * self._size, self._size + count)
            self._free = [*range(size - 1, self._size - 1, -1), *self._free]
            self._size = size
        taken = self._free[len(self._free) - count :]
        del self._free[len(self._free) - count :]
        return taken[::-1]

    def store(self, key: str, rows: Tensor, slots: Tensor) -> None:
        """Copy rows [count, ..] to slots, int64 [count] on the device of the rows.

        Raises:
            DataError: where the pools would take more than their room.
        """
        pool = self._pools.get(key)
        if pool is None or len(pool) < self._size:
            pool = self._grown(key, rows, pool)
        pool.index_copy_(0, slots, rows)

    def rows(self, key: str, slots: Tensor) -> Tensor:
        """The rows [.., width] at slots of any shape, a copy."""
        pool = self._pools[key]
        found = pool.index_select(0, slots.flatten().to(pool.device))
        return found.reshape(*slots.shape, *pool.shape[1:])

    def release(self, slots: list[int]) -> None:
        """Let slots be used again."""
        self._free += slots

    def _grown(self, key: str, rows: Tensor, pool: Tensor | None) -> Tensor:
        shape = (self._size, *rows.shape[1:])
        wanted = rows.element_size() * rows[0].numel() * self._size
        others = self.nbytes() - (0 if pool is None else pool.nbytes)
        if others + wanted > self.room:
            raise DataError(
                f"the rows of texts that are not whole yet take more than {self.room / 2**20:.0f} "
                f"MiB ({self.held} tokens of each site wait); cut texts into pieces with "
                "longest=512 (--option longest=512), give them more room with waiting=4096, in "
                "MiB (--option waiting=4096), or name fewer sites"
            )
        made = torch.empty(shape, dtype=rows.dtype, device=rows.device)
        if pool is not None:
            made[: len(pool)] = pool
        self._pools[key] = made
        return made


def padded(
    pieces: Mapping[int, list[int]], most: float = 1.25
) -> list[tuple[list[int], Tensor, Tensor]]:
    """Pieces of texts, by number, laid side by side: (numbers, slots, mask) of each batch.

    Numbers ascend in each batch. `slots` is int64 [pieces, longest] and `mask` bool of that shape,
    False behind the end of a piece; padded to at most `most` times the tokens there are.
    """
    order = sorted(pieces, key=lambda number: (len(pieces[number]), number))
    batches: list[list[int]] = []
    tokens = 0
    for number in order:
        length = len(pieces[number])
        tokens += length
        if not batches or (len(batches[-1]) + 1) * length > most * tokens:
            batches.append([])
            tokens = length
        batches[-1].append(number)
    found = []
    for batch in batches:
        batch.sort()
        lengths = torch.tensor([len(pieces[number]) for number in batch])
        longest = int(lengths.max())
        slots = torch.zeros(len(batch), longest, dtype=torch.int64)
        for line, number in zip(slots, batch, strict=True):
            line[: len(pieces[number])] = torch.tensor(pieces[number])
        found.append((batch, slots, torch.arange(longest)[None] < lengths[:, None]))
    return found
