"""The texts on which each of thousands of units is highest, in one pass and in bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor


class TopTexts:
    """For each unit its `k` documents of highest maximum, with the activations there.

    A document counts once, by its best text. Ties go to the earlier row, so the result does not
    depend on the batch size. Memory: units x k x positions values.

    Attributes:
        values: float32 [units, k], maxima, -inf where there is none yet; in no order.
        rows, documents: int64 [units, k], -1 where there is none yet.
        activations: float32 [units, k, positions].
    """

    def __init__(self, units: int, k: int, device: torch.device) -> None:
        self.values = torch.full((units, k), -torch.inf, device=device)
        self.rows = torch.full((units, k), -1, dtype=torch.int64, device=device)
        self.documents = torch.full_like(self.rows, -1)
        self.activations = torch.zeros(units, k, 0, device=device)

    def update(self, maxima: Tensor, values: Tensor, rows: Tensor, documents: Tensor) -> None:
        """Take in a batch.

        Args:
            maxima: [batch, units], over the positions that count.
            values: [batch, positions, units].
            rows: int64 [batch], ascending.
            documents: int64 [batch], non-decreasing over the whole stream.
        """
        self._reserve(values.shape[1])
        ids, counts = torch.unique_consecutive(documents, return_counts=True)
        ends = counts.cumsum(0)
        best, place = maxima, torch.arange(len(rows), device=rows.device)[:, None].expand_as(maxima)
        if len(ids) < len(rows):  # some texts are of one document
            parts = [
                (maxima[end - n : end].max(dim=0), int(end - n))
                for end, n in zip(ends.tolist(), counts.tolist(), strict=True)
            ]
            best = torch.stack([part.values for part, _ in parts])
            place = torch.stack([part.indices + start for part, start in parts])
        best = self._against_open_document(best, int(ids[0]))
        beats = best > self.values.min(dim=1).values
        units = beats.any(dim=0).nonzero()[:, 0]
        if len(units):
            self._insert(units, best[:, units], place[:, units], values, rows, documents)

    def _reserve(self, positions: int) -> None:
        missing = positions - self.activations.shape[2]
        if missing > 0:
            self.activations = torch.nn.functional.pad(self.activations, (0, missing))

    def _against_open_document(self, best: Tensor, document: int) -> Tensor:
        """A document that the batch before began keeps its better text alone."""
        same = self.documents == document
        if not bool(same.any()):
            return best
        earlier = torch.where(same, self.values, -torch.inf).max(dim=1).values
        wins = best[0] > earlier
        self.values[same & wins[:, None]] = -torch.inf
        best = best.clone()
        best[0] = torch.where(wins, best[0], -torch.inf)
        return best

    def _insert(
        self,
        units: Tensor,
        best: Tensor,
        place: Tensor,
        values: Tensor,
        rows: Tensor,
        documents: Tensor,
    ) -> None:
        """Put the new ones that belong to a unit's best into the slots of those that fell out."""
        k = self.values.shape[1]
        found = torch.cat([self.values[units], best.T], dim=1)
        # Empty slots and texts that do not count come last, so that they fall out first.
        late = torch.cat([self.rows[units], rows[place.T]], dim=1)
        late = torch.where(torch.isfinite(found), late, torch.iinfo(torch.int64).max)
        by_row = late.argsort(dim=1, stable=True)
        order = by_row.gather(
            1, found.gather(1, by_row).argsort(dim=1, descending=True, stable=True)
        )
        stays = torch.zeros_like(found, dtype=torch.bool).scatter_(1, order[:, :k], True)
        # As many enter as leave (what does not count never gets past the slots there are), so the
        # two lists, both in the order of the units, pair off.
        enters, leaves = stays[:, k:].nonzero(), (~stays[:, :k]).nonzero()
        unit, slot = units[leaves[:, 0]], leaves[:, 1]
        text = place[enters[:, 1], enters[:, 0]]
        self.values[unit, slot] = best[enters[:, 1], enters[:, 0]]
        self.rows[unit, slot] = rows[text]
        self.documents[unit, slot] = documents[text]
        self.activations[unit, slot, : values.shape[1]] = values[text, :, unit]
        self.activations[unit, slot, values.shape[1] :] = 0

    def ranked(self) -> Tensor:
        """int64 [units, k]: the slots of each unit, highest maximum first, ties by row."""
        late = torch.where(self.rows < 0, torch.iinfo(torch.int64).max, self.rows)
        by_row = late.argsort(dim=1, stable=True)
        by_value = self.values.gather(1, by_row).argsort(dim=1, descending=True, stable=True)
        return by_row.gather(1, by_value)
