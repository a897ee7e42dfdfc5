"""Rows of highest priority that wait on a GPU, so that the host fetches those of many batches.

How many rows of a batch are worth keeping depends on their values, so whoever asks waits for the
GPU. A fixed number of them, the highest of the batch and of those that wait, asks nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from polycode_plugins.devices import moved

_PLACES = 2**40  # more than a batch has rows and places


class WaitingRows:
    """The rows of highest priority of some batches.

    Attributes:
        origins: what each of the batches is, as the owner names it.
    """

    def __init__(self) -> None:
        self.origins: list[Any] = []
        self._rows: Tensor | None = None  # [waiting, width], as they came
        self._uniform: Tensor | None = None  # float64 [waiting]
        self._where: Tensor | None = None  # int64 [waiting], batch * _PLACES + place

    def offer(
        self,
        rows: Tensor,
        uniform: Tensor,
        priority: Tensor,
        places: Tensor,
        mean: Tensor,
        most: int,
    ) -> None:
        """Let the rows of a batch in whose priority is high enough; its origin is to follow.

        Args:
            rows: [samples, width]. uniform, priority: float64 [samples]. places: int64 [samples].
            mean: float64 [width], of all rows so far.
            most: rows that wait at most.
        """
        best = priority.topk(min(most, len(rows))).indices
        where = places[best] + len(self.origins) * _PLACES
        rows, uniform, priority = rows[best], uniform[best], priority[best]
        if self._rows is not None and self._uniform is not None and self._where is not None:
            weights = (self._rows.double() - mean).square().sum(dim=1)
            rows = torch.cat([self._rows, rows])
            where = torch.cat([self._where, where])
            priority = torch.cat([weights / self._uniform, priority])
            uniform = torch.cat([self._uniform, uniform])
            best = priority.topk(min(most, len(rows))).indices
            rows, uniform, where = rows[best], uniform[best], where[best]
        self._rows, self._uniform, self._where = rows, uniform, where

    def by_batch(
        self, mean: Tensor, floor: float
    ) -> Iterator[tuple[Any, tuple[Tensor, Tensor, Tensor]]]:
        """Origin, and (rows, uniform, places) on the CPU, of each batch of which rows are left.

        In the order in which they came; of priorities below `floor`, given the mean by now, none.
        """
        if self._rows is None or self._uniform is None or self._where is None:
            return
        weights = (self._rows.double() - mean).square().sum(dim=1)
        # Whole numbers up to 2^53 stay whole.
        known = torch.stack([weights / self._uniform, self._uniform, self._where.double()]).cpu()
        chosen = (known[0] >= floor).nonzero().flatten()
        where = known[2].to(torch.int64)
        chosen = chosen[where[chosen].argsort()]
        where, uniform = where[chosen], known[1][chosen]
        rows = self._rows.index_select(0, moved(chosen, self._rows.device)).cpu()
        batches, counts = torch.unique_consecutive(where // _PLACES, return_counts=True)
        parts = (torch.split(t, counts.tolist()) for t in (rows, uniform, where % _PLACES))
        for batch, *part in zip(batches.tolist(), *parts, strict=True):
            yield self.origins[batch], (part[0], part[1], part[2])
