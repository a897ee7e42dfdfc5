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
_TRIED = 16  # runs of free slots, from the last, of which one may be long enough


class Waiting:
    """Pools of rows, one for each key, with slots in common.

    Args:
        room: bytes that all pools may take.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._size = 0
        self._free: list[tuple[int, int]] = []  # first of each run and where it ends, ascending
        self._n_free = 0
        self._pools: dict[str, Tensor] = {}

    @property
    def held(self) -> int:
        """Slots in use."""
        return self._size - self._n_free

    def nbytes(self) -> int:
        """Bytes of all pools."""
        return sum(pool.nbytes for pool in self._pools.values())

    def __contains__(self, key: str) -> bool:
        return key in self._pools

    def crowded(self, count: int) -> bool:
        """Whether `count` rows more would take all of the room, or more than it."""
        return count > self._n_free and 2 * self.nbytes() > self.room

    def slots(self, count: int) -> list[int]:
        """Slots for `count` rows more: one after the other where there are so many, else any."""
        if count > self._n_free:
            size = max(_FIRST, 2 * self._size, self._size + count)
            self._let_go([(self._size, size)])
            self._n_free += size - self._size
            self._size = size
        self._n_free -= count
        for index in range(len(self._free) - 1, max(-1, len(self._free) - 1 - _TRIED), -1):
            start, stop = self._free[index]
            if stop - start >= count:
                self._free[index : index + 1] = [(start + count, stop)] * (stop - start > count)
                return list(range(start, start + count))
        taken: list[int] = []
        while len(taken) < count:
            start, stop = self._free.pop()
            middle = min(stop, start + count - len(taken))
            taken += range(start, middle)
            if middle < stop:
                self._free.append((middle, stop))
        return taken

    def run(self, key: str, first: int, rows: Tensor) -> Tensor:
        """Where as many rows as `rows` has wait, from slot `first` on: to be written to.

        Args:
            key: of the pool.
            first: of slots that are one after the other.
            rows: [count, ..], of the kind that are to wait; their values are not read.

        Raises:
            DataError: where the pools would take more than their room.
        """
        return self._pool(key, rows)[first : first + len(rows)]

    def store(self, key: str, rows: Tensor, slots: Tensor) -> None:
        """Copy rows [count, ..] to slots, int64 [count] on the device of the rows.

        Raises:
            DataError: where the pools would take more than their room.
        """
        self._pool(key, rows).index_copy_(0, slots, rows)

    def rows(self, key: str, slots: Tensor) -> Tensor:
        """The rows [.., width] at slots of any shape, a copy."""
        pool = self._pools[key]
        found = pool.index_select(0, slots.flatten().to(pool.device))
        return found.reshape(*slots.shape, *pool.shape[1:])

    def release(self, slots: list[int]) -> None:
        """Let slots be used again."""
        runs: list[tuple[int, int]] = []
        for slot in sorted(slots):
            if runs and runs[-1][1] == slot:
                runs[-1] = runs[-1][0], slot + 1
            else:
                runs.append((slot, slot + 1))
        self._n_free += len(slots)
        self._let_go(runs)

    def _let_go(self, runs: list[tuple[int, int]]) -> None:
        joined: list[tuple[int, int]] = []
        for start, stop in sorted(self._free + runs):
            if joined and joined[-1][1] == start:
                joined[-1] = joined[-1][0], stop
            else:
                joined.append((start, stop))
        self._free = joined

    def _pool(self, key: str, rows: Tensor) -> Tensor:
        pool = self._pools.get(key)
        if pool is None or len(pool) < self._size:
            pool = self._grown(key, rows, pool)
        return pool

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
