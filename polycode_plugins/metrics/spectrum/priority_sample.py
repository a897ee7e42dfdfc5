"""A few rows of a stream that stand for all of them in sums of squares.

Each row has a weight, its squared distance from the mean, and a priority, weight / u, with a number
u in (0, 1] that its identity decides. Those of highest priority are kept (priority sampling:
Duffield, Lund & Thorup 2007, J. ACM 54). With tau the next priority below them, a kept row stands
for max(1, tau / weight) rows: any sum over all rows of a quantity that the weight bounds then has
an unbiased estimate. Rows that make up much of the variance are kept for certain, by themselves:
all whose weight is above tau, and tau is about the sum of all weights over `KEPT` at most.

The distance is known only when the mean is, at the end, so half as many more rows are held than are
kept. A row could be missed whose distance from the mean so far was so much less than that from the
final one that its priority was lower by a third: at the beginning of a stream whose mean then moves
far. All this costs some passes over the batch, and little else once the largest rows have come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.activations import Activations, Positions
from polycode_plugins.devices import moved
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics.base import Accumulator
from polycode_plugins.metrics.spectrum.waiting_rows import WaitingRows

KEPT = 256
VALUES = 4_000_000  # in the rows that are kept of wide layers, so that these are fewer
LEAST = 16
TEXT = 48  # bytes of a token's text that are kept
WAITING = 64  # batches of which rows wait on a GPU before they are fetched
UNKNOWN = -1  # row, document or token


@dataclass(frozen=True)
class KeptRow:
    """Which sample a kept row is.

    Attributes:
        row: the row of the batch it is of: its number in the whole data, or, where rows have none,
            how many came before it (those merged in come after all that were there).
        place: its index along each axis of positions, () for none.
        document: the document the row was cut from.
        token: the id of the token there. text: that token.
    """

    row: int
    place: tuple[int, ...]
    document: int | None
    token: int | None
    text: str | None


@dataclass(frozen=True)
class Kept:
    """Rows that stand for the stream.

    rows: [k, width] float64, less the mean. counts: [k] how many rows of the stream each stands
    for, 1 for those kept for certain. names: which they are. values: [k, width] as they came.
    """

    rows: Tensor
    counts: Tensor
    names: list[KeptRow]
    values: Tensor


class PrioritySample(Accumulator):
    """The rows of highest priority among all that came, and which they are.

    Samples are told apart by row number and place, or by their values: in whatever batches and
    accumulators they come, the same ones are kept.

    Args:
        positions: whether positions are "samples" or "features", as for `Covariance`.
    """

    name = "priority-sample"
    optional = True

    def __init__(self, positions: Positions = "samples") -> None:
        self.positions = positions
        self._count = 0
        self._arrived = 0  # rows of batches
        self._mean: Tensor | None = None  # float64 [width]
        self._floor = 0.0  # lower priorities are not among the highest
        self._values: list[Tensor] = []  # [rows, width], as they came
        self._uniform: list[Tensor] = []  # float64 [rows]
        self._numbers: list[Tensor] = []  # int64 [rows, 4 + places], see `_NUMBERS`
        self._texts: list[str] = []
        self._held = 0
        self._waiting = WaitingRows()  # of a GPU

    def options(self) -> dict[str, Any]:
        """The settings that define the statistic."""
        return {"positions": self.positions}

    @property
    def n_samples(self) -> int:
        """Samples taken in so far."""
        return self._count

    def update(self, activations: Activations) -> None:
        """Take in one batch [.., features]; masked samples are left out."""
        rows = activations.matrix(self.positions).detach()
        before, self._arrived = self._arrived, self._arrived + activations.values.shape[0]
        if rows.shape[0] == 0:
            return
        wide = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
        if self._mean is not None:  # a state that was loaded is on the CPU
            self._mean = moved(self._mean, rows.device)
        self._shift(rows.shape[0], wide.mean(dim=0).double())  # a reference
        assert self._mean is not None
        apart = wide - self._mean.to(wide)
        weights = torch.linalg.vector_norm(apart, dim=1).double().square()
        places = self._places(activations, rows.shape[0])
        uniform = self._drawn(activations, wide, places)
        priority = weights / uniform
        held = _kept_of(rows.shape[1]) * 3 // 2
        if rows.device.type != "cpu":
            self._waiting.offer(rows, uniform, priority, places, self._mean, held)
            names = activations.once("names", partial(_names_alone, activations))
            self._waiting.origins.append((names, before))
            if len(self._waiting.origins) >= WAITING:
                self._collect()
            return
        chosen = (priority >= self._floor).nonzero().flatten()  # of the first row it is 0
        if len(chosen) > held:
            chosen = chosen[priority[chosen].topk(held).indices.sort().values]
        if len(chosen):
            self._take(rows[chosen], uniform[chosen], places[chosen], activations, before)

    def _take(
        self, rows: Tensor, uniform: Tensor, places: Tensor, of: Activations, before: int
    ) -> None:
        """Hold rows of one batch, on the CPU."""
        self._values.append(rows)
        self._uniform.append(uniform)
        self._name(of, places, before)
        self._held += len(rows)
        self._prune()

    def _collect(self) -> None:
        """Take in the rows that wait on a GPU."""
        waiting, self._waiting = self._waiting, WaitingRows()
        if self._mean is None or not waiting.origins:
            return
        left = waiting.by_batch(self._mean, self._floor)
        self._mean = self._mean.cpu()
        for (of, before), (rows, uniform, places) in left:
            self._take(rows, uniform, places, of, before)

    def _collected(self) -> Self:
        """Self with what waits, without collecting it in self: reading changes no state."""
        if not self._waiting.origins:
            return self
        total = self.fresh()
        total.__dict__.update(self.__dict__)
        for name in ("_values", "_uniform", "_numbers", "_texts"):
            setattr(total, name, list(getattr(self, name)))
        total._collect()
        return total

    def merge(self, other: Self) -> None:
        """Take in everything `other` has seen."""
        if other.key() != self.key():
            raise StateError(f"{other.key()} cannot be merged into {self.key()}")
        self._collect()
        other = other._collected()
        if other._mean is not None:
            self._shift(other._count, other._mean)
            numbers = [n.clone() for n in other._numbers]
            for part in numbers:
                part[part[:, 1] == 0, 0] += self._arrived
            if self._numbers and numbers and numbers[0].shape[1] != self._numbers[0].shape[1]:
                raise StateError("the axes of positions differ, so the rows cannot be merged")
            self._values += other._values
            self._uniform += other._uniform
            self._numbers += numbers
            self._texts += other._texts
            self._held += other._held
            self._floor = max(self._floor, other._floor)
            self._prune()
        self._arrived += other._arrived

    def kept(self, mean: Tensor) -> Kept:
        """The rows that are kept, given the final mean, float64 [width]; highest priority first."""
        if self._mean is None:
            raise DataError("no sample came, so none is kept; give data")
        if self._waiting.origins:
            return self._collected().kept(mean)
        values, uniform, numbers = (
            torch.cat(parts) for parts in (self._values, self._uniform, self._numbers)
        )
        rows = values.double() - mean.cpu()
        weights = rows.square().sum(dim=1)
        order = self._order(weights / uniform, numbers)
        most = _kept_of(values.shape[1])
        limit = float((weights / uniform)[order[most]]) if len(order) > most else 0.0
        order = order[:most]
        counts = (limit / weights[order].clamp_min(1e-300)).clamp(1.0, max(1.0, self._count))
        return Kept(
            rows[order], counts, [self._row(numbers, i) for i in order.tolist()], values[order]
        )

    # -- which row is which ----------------------------------------------------------------------

    def _places(self, activations: Activations, n: int) -> Tensor:
        """int64 [samples]: index among all rows and places of the batch."""
        if self.positions == "samples":
            return activations.once("places", activations.sample_places)
        mask = activations.mask
        if mask is None:
            return torch.arange(n, device=activations.values.device)
        whole = mask.cpu().reshape(len(mask), -1).all(dim=1)
        return moved(whole.nonzero().flatten(), activations.values.device)

    def _shape(self, activations: Activations) -> tuple[int, ...]:
        return activations.places() if self.positions == "samples" else ()

    def _drawn(self, activations: Activations, rows: Tensor, places: Tensor) -> Tensor:
        """float64 [samples] in (0, 1], decided by number and place, or by the values.

        Rows that are samples are always told by their values: some ways to them know no numbers.
        """
        shape = self._shape(activations)
        if activations.rows is None or not shape:
            bits = rows.float().contiguous().view(torch.int32)
            return _uniform(bits.sum(dim=1, dtype=torch.int32).to(torch.int64))
        size = math.prod(shape)
        numbered = activations.rows

        def drawn() -> Tensor:
            numbers = moved(numbered, places.device)[places // size]
            return _uniform(_mixed(numbers) + places % size)

        return activations.once("priorities", drawn)

    def _name(self, activations: Activations, places: Tensor, before: int) -> None:
        """Note row, whether it is numbered, document, token and place of chosen samples."""
        shape = self._shape(activations)
        size = math.prod(shape)
        of, place = places // size, places % size

        def looked_up(values: Tensor | None) -> Tensor:
            if values is None:
                return torch.full_like(of, UNKNOWN)
            values = values.cpu()
            if values.dim() > 1:  # several documents in a row
                return values.flatten(1)[of, place if shape else 0].to(torch.int64)
            return values[of].to(torch.int64)

        tokens = activations.tokens
        ids = torch.full_like(of, UNKNOWN)
        if tokens is not None and len(shape) == 1 and tuple(tokens.ids.shape[1:]) == shape:
            ids = tokens.ids.cpu()[of, place].to(torch.int64)
        text = None if tokens is None else tokens.text
        self._texts += [
            "" if text is None or i == UNKNOWN else _short(text(i)) for i in ids.tolist()
        ]
        numbered = activations.rows is not None
        rows = looked_up(activations.rows) if numbered else of + before
        along, rest = [], place
        for length in reversed(shape):
            along.append(rest % length)
            rest = rest // length
        columns = [rows, torch.full_like(of, numbered), looked_up(activations.documents), ids]
        self._numbers.append(torch.stack([*columns, *reversed(along)], dim=1))

    def _row(self, numbers: Tensor, i: int) -> KeptRow:
        row, _, document, token, *place = numbers[i].tolist()
        return KeptRow(
            row=row,
            place=tuple(place),
            document=None if document == UNKNOWN else document,
            token=None if token == UNKNOWN else token,
            text=self._texts[i] or None,
        )

    # -- what is held ----------------------------------------------------------------------------

    def _shift(self, count: int, mean: Tensor) -> None:
        """Move the mean by `count` samples more."""
        self._count += count
        if self._mean is None:
            self._mean = mean.clone()
            return
        if self._mean.shape != mean.shape:
            raise DataError(
                f"activations of width {len(mean)} follow ones of width {len(self._mean)}; a site "
                "must keep its width (inputs of one size, or positions='samples')"
            )
        self._mean += (moved(mean, self._mean.device) - self._mean) * (count / self._count)

    def _prune(self) -> None:
        """Let go of the rows of lowest priority where twice as many are held as are kept."""
        assert self._mean is not None
        kept = _kept_of(len(self._mean))
        if self._held <= 2 * kept:
            return
        values, uniform, numbers = (
            torch.cat(parts) for parts in (self._values, self._uniform, self._numbers)
        )
        priority = (values.double() - self._mean).square().sum(dim=1) / uniform
        order = self._order(priority, numbers)[: kept * 3 // 2]
        self._floor = float(priority[order[-1]])
        order = order.sort().values
        self._texts = [self._texts[i] for i in order.tolist()]
        self._values, self._uniform = [values[order]], [uniform[order]]
        self._numbers, self._held = [numbers[order]], len(order)

    @staticmethod
    def _order(priority: Tensor, numbers: Tensor) -> Tensor:
        """Indices by falling priority; equal ones by their numbers."""
        keys = [*numbers.T.flip(0).numpy(), -priority.numpy()]
        return torch.from_numpy(np.lexsort(keys))

    # -- state -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Counts, mean, and the rows held with what names them."""
        if self._waiting.origins:
            return self._collected().state()
        counts = torch.tensor([self._count, self._arrived], dtype=torch.int64)
        state = {"counts": counts, "floor": torch.tensor(self._floor, dtype=torch.float64)}
        if self._mean is not None:
            state["mean"] = self._mean.cpu().clone()
        if self._held:
            state["rows"] = torch.cat(self._values)
            state["uniform"] = torch.cat(self._uniform)
            state["numbers"] = torch.cat(self._numbers)
            texts = np.zeros((self._held, TEXT), dtype=np.uint8)
            for line, text in zip(texts, self._texts, strict=True):
                encoded = text.encode()
                line[: len(encoded)] = np.frombuffer(encoded, dtype=np.uint8)
            state["texts"] = torch.from_numpy(texts)
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace what has been seen by `state`."""
        fresh = self.fresh()
        try:
            fresh._count, fresh._arrived = (int(v) for v in state["counts"])
            fresh._floor = float(state["floor"])
            if "mean" in state:
                fresh._mean = state["mean"].double().clone()
            if "rows" in state:
                rows, uniform, numbers, texts = (
                    state[name].clone() for name in ("rows", "uniform", "numbers", "texts")
                )
                held = len(rows)
                if fresh._mean is None or rows.shape[1:] != fresh._mean.shape:
                    raise StateError("the saved rows do not fit their mean")
                if uniform.shape != (held,) or not bool((uniform > 0).all()):
                    raise StateError("the saved rows lack what orders them")
                if len(numbers) != held or numbers.shape[1] < 4 or texts.shape != (held, TEXT):
                    raise StateError("the saved rows lack what names them")
                fresh._values, fresh._uniform = [rows], [uniform.double()]
                fresh._numbers, fresh._held = [numbers.to(torch.int64)], held
                fresh._texts = [
                    bytes(line).rstrip(b"\0").decode(errors="replace") for line in texts.numpy()
                ]
            if (fresh._mean is None) != (fresh._count == 0):
                raise StateError("the saved sample counts rows and has no mean")
        except (KeyError, ValueError, IndexError, RuntimeError, TypeError) as error:
            raise StateError(f"the saved sample of rows is damaged: {error}") from error
        self.__dict__.update(fresh.__dict__)


def _names_alone(activations: Activations) -> Activations:
    """What names the samples of a batch, copied, without their values."""
    rows, documents, tokens = activations.rows, activations.documents, activations.tokens
    return Activations(
        torch.empty_like(activations.values, device="meta"),
        activations.axes,
        rows=None if rows is None else rows.clone(),
        documents=None if documents is None else documents.clone(),
        tokens=None if tokens is None else replace(tokens, ids=tokens.ids.clone()),
    )


def _kept_of(width: int) -> int:
    """How many rows are kept of a width."""
    return min(KEPT, max(LEAST, VALUES // width))


def _mixed(names: Tensor) -> Tensor:
    """int64 with all bits of others stirred: Steele, Lea & Flood's SplitMix."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        names = (names ^ (names >> shift)) * factor
    return names ^ (names >> 31)


def _uniform(names: Tensor) -> Tensor:
    """float64 in (0, 1] for each of int64 numbers."""
    return ((_mixed(names) & (2**53 - 1)) + 1).double() / 2**53


def _short(text: str) -> str:
    """As much of a text as is kept; without what a state of bytes cannot hold."""
    return text.replace("\0", "").encode(errors="replace")[:TEXT].decode(errors="ignore")
