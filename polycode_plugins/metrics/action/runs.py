"""Runs of successive rows that were seen, each with the two rows at which it can still grow."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Self

import torch
from torch import Tensor

from polycode_plugins.errors import DataError, StateError

# Edge rows wait for their neighbours in memory; rows that come out of order leave many of them.
MAX_EDGE_BYTES = 2 * 2**30

Run = tuple[int, int, Tensor, Tensor]


class Runs:
    """Disjoint ranges of row numbers with their first and last rows [lanes, width].

    Two runs that touch become one. Rows are shared and never changed in place.
    """

    def __init__(self) -> None:
        self._firsts: list[int] = []  # ascending; the other lists are in the same order
        self._lasts: list[int] = []
        self._heads: list[Tensor] = []
        self._tails: list[Tensor] = []

    def __iter__(self) -> Iterator[Run]:
        """(first number, last number, first row, last row) in ascending order."""
        return zip(self._firsts, self._lasts, self._heads, self._tails, strict=True)

    @property
    def n_paths(self) -> int:
        """Runs of at least two rows, times the lanes of a row."""
        long = sum(last > first for first, last in zip(self._firsts, self._lasts, strict=True))
        return long * self._heads[0].shape[0] if long else 0

    def join(
        self, first: int, last: int, head: Tensor, tail: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Add the rows from `first` to `last`; return the rows just before and after, if seen.

        Raises:
            DataError: for a row that was seen before, or of another number of lanes.
        """
        if self._heads and self._heads[0].shape != head.shape:
            raise DataError(
                f"rows of {head.shape[0]} positions follow ones of {self._heads[0].shape[0]}; a "
                "path needs inputs of one size"
            )
        at = bisect_left(self._firsts, first)
        double = None
        if at > 0 and self._lasts[at - 1] >= first:
            double = first
        elif at < len(self._firsts) and self._firsts[at] <= last:
            double = self._firsts[at]
        if double is not None:
            raise DataError(
                f"row {double} of the data came twice, so its place on the path is unclear; give "
                "each row once, and name each call of a module that runs several times"
            )
        before = after = None
        low = high = at
        if at > 0 and self._lasts[at - 1] == first - 1:
            low, before = at - 1, self._tails[at - 1]
            first, head = self._firsts[low], self._heads[low]
        if at < len(self._firsts) and self._firsts[at] == last + 1:
            high, after = at + 1, self._heads[at]
            last, tail = self._lasts[at], self._tails[at]
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]
        self._heads[low:high] = [head]
        self._tails[low:high] = [tail]
        return before, after

    def check_size(self) -> None:
        """Raise DataError where the rows kept exceed their limit."""
        if not self._heads:
            return
        each = self._heads[0].numel() * self._heads[0].element_size()
        count = sum(1 + (last > first) for first, last, _, _ in self)
        if count * each > MAX_EDGE_BYTES:
            raise DataError(
                f"{count} rows at the ends of {len(self._firsts)} runs wait for their neighbours, "
                f"more than {MAX_EDGE_BYTES / 2**30:.0f} GiB; a path needs the rows in order, so "
                "use fewer shards, a narrower site, or kind='static' where rows have no order"
            )

    def state(self) -> dict[str, Tensor]:
        """Ranges [runs, 2] and their first and last rows [runs, lanes, width]."""
        if not self._heads:
            return {}
        return {
            "runs": torch.tensor([self._firsts, self._lasts]).T.contiguous(),
            "heads": torch.stack([row.cpu() for row in self._heads]),
            "tails": torch.stack([row.cpu() for row in self._tails]),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """What `state` gave.

        Raises:
            StateError: for ranges that overlap, or touch and were not joined.
            KeyError, IndexError, RuntimeError: for tensors that are missing or do not fit.
        """
        runs = cls()
        if "runs" not in state:
            return runs
        for i, (first, last) in enumerate(state["runs"].tolist()):
            head = state["heads"][i].clone()
            tail = state["tails"][i].clone() if last > first else head
            if last < first or any(t is not None for t in runs.join(first, last, head, tail)):
                raise StateError("the saved runs of rows touch each other")
        return runs
