"""The texts on which each of thousands of units is highest, in one pass and in bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from polycode_plugins.errors import DataError

_NEVER = torch.iinfo(torch.int64).min  # fills up lists of unequal length
_EMPTY = _NEVER + 1  # a slot without a text
_ROWS = 2**32
WAITING = 8  # texts that may wait for each unit, on average


class TopTexts:
    """For each unit its `k` documents of highest maximum, with the activations there.

    A document counts once, by its best text. Ties go to the earlier row, so the result does not
    depend on the batch size. Texts that beat a unit's worst wait until there are `WAITING` for each
    unit. Memory: units x (k + WAITING) x (positions + 7) values of four bytes at most, and while a
    batch is taken in what the units read there.

    Attributes:
        ranks: int64 [units, k], higher for a better text; tell the maximum and the row, see below.
        documents: int64 [units, k], -1 where there is none yet.
        activations: float32 [units, k, positions].

    These three lack the texts that wait until `settle` or anything that calls it.
    """

    def __init__(self, units: int, k: int, device: torch.device) -> None:
        self.ranks = torch.full((units, k), _EMPTY, dtype=torch.int64, device=device)
        self.documents = torch.full_like(self.ranks, -1)
        self.activations = torch.zeros(units, k, 0, device=device)
        self._worst = torch.full((units,), -torch.inf, device=device)
        self._waiting: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []
        self._open = self._last = -1

    def tensors(self) -> list[Tensor]:
        """Everything held, those that wait included."""
        waiting = [t for entry in self._waiting for t in entry]
        return [self.ranks, self.documents, self.activations, self._worst, *waiting]

    @property
    def values(self) -> Tensor:
        """float32 [units, k]: maxima, -inf where there is none yet; in no order."""
        self.settle()
        return maxima_of(self.ranks)

    @property
    def rows(self) -> Tensor:
        """int64 [units, k]: -1 where there is none yet."""
        self.settle()
        return rows_of(self.ranks)

    def look(
        self, first: int, maxima: Tensor, values: Tensor, rows: Tensor, documents: Tensor
    ) -> None:
        """Take in a batch as some of the units read it; call `settle` after the last.

        Args:
            first: of these units.
            maxima: float32 [units, batch], over the positions that count.
            values: float32 [units, batch, positions], contiguous.
            rows: int64 [batch], ascending.
            documents: int64 [batch], non-decreasing over the whole stream.
        """
        self._last = int(documents[-1])
        # Few texts beat a unit's worst, and all that follows is about these.
        worst = self._worst[first : first + len(maxima), None]
        unit, text = (maxima > worst).nonzero(as_tuple=True)
        if len(unit):
            at = unit * len(rows) + text
            read = values.flatten(0, 1).index_select(0, at)
            found = maxima.flatten()[at]
            self._waiting.append((unit + first, found, rows[text], documents[text], read))

    def settle(self, *, at_least: int = 0) -> None:
        """Let in those that wait, if any, and only where they are `at_least` so many."""
        if sum(len(unit) for unit, *_ in self._waiting) < max(1, at_least):
            return
        unit, maxima, rows, documents = (torch.cat([w[i] for w in self._waiting]) for i in range(4))
        unit, source = unit.sort(stable=True)
        ranks, documents = ranks_of(maxima, rows)[source], documents[source]
        for which in (_best_of_document, self._against_open_document):
            kept = which(unit, documents, ranks)
            if not bool(kept.all()):
                unit, documents, ranks = unit[kept], documents[kept], ranks[kept]
                source = source[kept]
        if len(unit):
            self._insert(unit, documents, ranks, source)
        self._waiting, self._open = [], self._last

    def _against_open_document(self, unit: Tensor, documents: Tensor, ranks: Tensor) -> Tensor:
        """Which are no worse text of a document that the unit holds; a held worse text goes."""
        better = torch.ones_like(unit, dtype=torch.bool)
        again = (documents == self._open).nonzero()[:, 0]
        held = self.documents[unit[again]] == self._open
        stays = held & (self.ranks[unit[again]] > ranks[again, None])
        which, slot = (held & ~stays).nonzero(as_tuple=True)
        self.ranks[unit[again[which]], slot] = _EMPTY
        better[again] = ~stays.any(dim=1)
        return better

    def _insert(self, unit: Tensor, documents: Tensor, ranks: Tensor, source: Tensor) -> None:
        """Put the new ones that belong to a unit's best into the slots of those that fall out."""
        k = self.ranks.shape[1]
        units, which, counts = torch.unique_consecutive(
            unit, return_inverse=True, return_counts=True
        )
        place = torch.arange(len(unit), device=unit.device) - (counts.cumsum(0) - counts)[which]
        new = ranks.new_full((len(units), int(counts.max())), _NEVER)
        new[which, place] = ranks
        found = torch.cat([self.ranks[units], new], dim=1)
        best, order = found.topk(k, dim=1, sorted=False)
        stays = torch.zeros_like(found, dtype=torch.bool).scatter_(1, order, True)
        # As many enter as leave, so the two lists, both in the order of the units, pair off.
        enters = stays[:, k:][which, place]
        leaves, slot = (~stays[:, :k]).nonzero(as_tuple=True)
        at = units[leaves] * k + slot
        self.ranks.view(-1)[at] = ranks[enters]
        self.documents.view(-1)[at] = documents[enters]
        self._worst[units] = maxima_of(best.amin(dim=1))
        self._keep(at, source[enters])

    def _keep(self, slots: Tensor, source: Tensor) -> None:
        """Copy the activations of texts that wait, counted through, to their slots."""
        missing = max(read.shape[1] for *_, read in self._waiting) - self.activations.shape[2]
        if missing > 0:
            self.activations = pad(self.activations, (0, missing))
        held = self.activations.flatten(0, 1)
        source, order = source.sort()
        sizes = torch.tensor([0, *(len(read) for *_, read in self._waiting)])
        starts = sizes.cumsum(0)
        bounds = torch.searchsorted(source, starts.to(source.device)).tolist()
        for i, (*_, read) in enumerate(self._waiting):
            part, n = slice(bounds[i], bounds[i + 1]), read.shape[1]
            into = slots[order[part]]
            held[into, :n] = read.index_select(0, source[part] - starts[i])
            if n < held.shape[1]:
                held[into, n:] = 0

    def ranked(self) -> Tensor:
        """int64 [units, k]: the slots of each unit, highest maximum first, ties by row."""
        self.settle()
        return self.ranks.argsort(dim=1, descending=True)


def ranks_of(maxima: Tensor, rows: Tensor) -> Tensor:
    """int64: one number that orders by the maximum (float32), and ties by the lower row.

    The bits of a float, read as an integer, order as it does, once those below the sign are flipped
    where it is negative. The row is in the lower half.

    Raises:
        DataError: for a row beyond four billion.
    """
    if bool((rows >= _ROWS).any()):
        raise DataError(f"rows are numbered up to {_ROWS - 1} here; split the data")
    bits = (maxima + 0.0).view(torch.int32).long()  # -0.0 + 0.0 is 0.0
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits) * _ROWS + (_ROWS - 1 - rows)


def maxima_of(ranks: Tensor) -> Tensor:
    """float32: the maxima that went into ranks, -inf for an empty slot."""
    bits = ranks >> 32
    bits = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int32)
    return torch.where(ranks > _EMPTY, bits.view(torch.float32), -torch.inf)


def rows_of(ranks: Tensor) -> Tensor:
    """int64: the rows that went into ranks, -1 for an empty slot."""
    return torch.where(ranks > _EMPTY, _ROWS - 1 - (ranks & (_ROWS - 1)), -1)


def _best_of_document(unit: Tensor, documents: Tensor, ranks: Tensor) -> Tensor:
    """Which are the best of their unit and document; those of one lie side by side."""
    starts = torch.ones_like(unit, dtype=torch.bool)
    starts[1:] = (unit.diff() != 0) | (documents.diff() != 0)
    if bool(starts.all()):
        return starts
    group = starts.cumsum(0) - 1
    best = torch.full_like(ranks, _NEVER).scatter_reduce_(0, group, ranks, "amax")
    return ranks == best[group]
