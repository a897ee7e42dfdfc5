"""`Reservoir`: the same few thousand samples of every site, so that sites can be compared jointly.

A covariance knows one site; what two sites say about each other needs the samples themselves, of
both, side by side. A reservoir keeps a bounded number of them. Which ones is decided by a hash of
the sample's row and position alone (bottom-k sampling, Cohen & Kaplan 2007), so every site keeps
the same ones, and so does any split of the data into batches, shards or merged parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polycode_plugins.activations import POSITION_AXES, Activations
from polycode_plugins.devices import HOST, moved
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics.base import Accumulator, Memory

Integers = NDArray[np.int64]

#: Widest input of which a copy is kept with every sample.
WIDEST_INPUT = 4096
#: Places drawn per image at most; each is a share of height and width, the same at every site.
PLACES = 64
#: The document of samples whose row is one.
OWN_ROW = -2


class Chosen(NamedTuple):
    """Candidates of a batch, or what a reservoir holds, all int64 [samples].

    draw: the row's how-many-eth sample; hash: of the row; place: position within the row; at: line
    of the batch's matrix, or of what is held.
    """

    draw: Integers
    hash: Integers
    row: Integers
    place: Integers
    at: Integers

    def lines(self, kept: Any) -> Chosen:
        """Those of `kept` alone."""
        return Chosen(*(column[kept] for column in self))


class Samples(NamedTuple):
    """What is known of each sample.

    values: float32 [samples, width], where the activations are. labels: int64 [samples], -1 for
    none. inputs: float32 [samples, input width], of width 0 where none are kept. documents: int64
    [samples], as in `Activations.documents`; `OWN_ROW` where rows are documents.
    """

    values: Tensor
    labels: Tensor
    inputs: Tensor
    documents: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        """All parts, one after the other, where the last of them is."""
        there = parts[-1].values.device
        values = torch.cat([moved(part.values, there) for part in parts])
        others = zip(*(part[1:] for part in parts), strict=True)
        return cls(values, *(torch.cat(column) for column in others))

    def lines(self, kept: Tensor) -> Samples:
        """Those of `kept`, int64 on the CPU, alone."""
        values = self.values.index_select(0, moved(kept, self.values.device))
        return Samples(values, *(column[kept] for column in self[1:]))


class Reservoir(Accumulator):
    """At most `size` samples of a site, float32, the same ones at every site.

    A sample is a position of a row (a token of a window, a place in an image) or a row of a site
    without positions. Rows come first: every row gives one sample before any gives a second, so
    that as many as possible are independent; beyond `size` rows, a random choice of rows is kept.
    In a text a row's samples are its unmasked positions in random order. In an image they are
    random places, given as shares of height and width, so that maps of different resolution are
    read at corresponding pixels.

    Activations without row numbers (somebody else's forward passes, plain arrays) are numbered as
    they come; those of a reservoir that is merged in come after those that are there.

    Args:
        size: most samples kept.
        seed: of the choice.
        inputs: whether to keep the model's input of each sample's row beside it.
    """

    name = "reservoir"

    def __init__(self, size: int = 4096, seed: int = 0, inputs: bool = False) -> None:
        if size < 1:
            raise DataError(f"a reservoir holds at least 1 sample, and size is {size}")
        self.size = size
        self.seed = seed
        self.inputs = inputs
        self._seen = 0
        self._unnumbered = 0  # rows that came without a number
        self._batch: tuple[Tensor | None, Tensor | None] = (None, None)  # labels, inputs
        self._held = Chosen(*[np.empty(0, dtype=np.int64)] * 5)
        self._columns: list[Samples] = []
        self._limit: tuple[int, int, int] | None = None  # of the last sample that is kept

    def options(self) -> dict[str, Any]:
        """The settings that define the statistic."""
        return {"size": self.size, "seed": self.seed, "inputs": self.inputs}

    @property
    def n_samples(self) -> int:
        """Samples seen, not those kept."""
        return self._seen

    def memory(self, batch: Activations, rows: int | None) -> Memory:
        """`size` samples in float32, twice while they are joined; see `Accumulator.memory`."""
        samples, width = batch.matrix("samples").shape
        expected = self.size if rows is None else rows * samples // max(len(batch.values), 1)
        kept = min(self.size, expected) * width * 4
        return Memory(kept, kept)

    def begin(self, labels: Tensor | None, inputs: Tensor | None = None) -> None:
        """Keep the labels [batch] and inputs [batch, ..] of the batch to come."""
        if self.inputs and inputs is not None:
            inputs = inputs.detach().flatten(1).float().cpu()
            if inputs.shape[1] > WIDEST_INPUT:
                raise DataError(
                    f"inputs of {inputs.shape[1]} values are too wide to keep beside the samples "
                    f"(at most {WIDEST_INPUT}); name the first layer as partner instead"
                )
        self._batch = labels, inputs if self.inputs else None

    def update(self, activations: Activations) -> None:
        """Take in one batch; of it only the samples that may stay are copied."""
        mask = _mask(activations)
        self._seen += int(mask.sum())
        rows = self._rows(activations)
        found = _candidates(rows, mask, activations.axes, activations.values.shape, self.seed)
        if self._limit is not None:
            found = found.lines(_before(found, self._limit))
        if not len(found.row):
            return
        unmasked = replace(activations, mask=None)
        samples, documents = unmasked.matrix("samples"), unmasked.sample_documents(HOST)
        at = torch.from_numpy(found.at)
        if self._columns and samples.shape[1] != self._columns[0].values.shape[1]:
            raise DataError(
                f"activations of width {samples.shape[1]} follow ones of width "
                f"{self._columns[0].values.shape[1]}; a site must keep its width"
            )
        of = torch.from_numpy(found.at // mask.shape[1])
        labels, inputs = (
            known[of] if known is not None and len(known) == mask.shape[0] else None
            for known in self._batch
        )
        self._add(
            found,
            Samples(
                # float32 rounds what was computed in float64; an overflow is refused when read.
                samples.index_select(0, moved(at, samples.device)).detach().float(),
                torch.full((len(at),), -1) if labels is None else labels.cpu().long(),
                torch.empty(len(at), 0) if inputs is None else inputs,
                torch.full((len(at),), OWN_ROW) if documents is None else documents[at].long(),
            ),
        )

    def merge(self, other: Self) -> None:
        """Take in everything `other` has kept."""
        if other.key() != self.key():
            raise StateError(f"{other.key()} cannot be merged into {self.key()}")
        if self._seen and other._seen and bool(self._unnumbered) != bool(other._unnumbered):
            raise StateError(
                "joint samples of rows with numbers and of rows without cannot be merged, since "
                "nothing says which rows are the same; take all from pc.analyze, or all from "
                "elsewhere"
            )
        # Rows without a number come after those that are here, which every site does alike. Their
        # hash stays: of each part the rows that it drew are kept.
        offset = self._unnumbered if other._unnumbered else 0
        self._seen += other._seen
        self._unnumbered += other._unnumbered
        if other._columns:
            held = other._held._replace(row=other._held.row + offset)
            self._add(held, Samples.joined(other._columns))

    def samples(self) -> tuple[Chosen, Samples]:
        """Which samples are kept, and what is known of each.

        Raises:
            DataError: when there is none.
        """
        self._cut()
        if not self._columns:
            raise DataError("no sample came; give data, or check that the mask leaves some")
        columns = self._columns[0]
        return self._held, columns._replace(values=columns.values.cpu())

    def state(self) -> dict[str, Tensor]:
        """Counts, keys and columns of what is kept."""
        self._cut()
        state = {"count": torch.tensor([self._seen, self._unnumbered])}
        if self._columns:
            keys = np.stack([self._held.draw, self._held.hash, self._held.row, self._held.place])
            state["keys"] = torch.from_numpy(keys)
            columns = self._columns[0]._asdict().items()
            state |= {k: v.cpu().clone() for k, v in columns if v.numel()}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace what has been kept by `state`."""
        fresh = self.fresh()
        try:
            fresh._seen, fresh._unnumbered = (int(v) for v in state["count"])
            if "values" in state:
                draw, hashed, row, place = state["keys"].numpy()
                inputs = state.get("inputs", torch.empty(len(row), 0))
                # Version 0.1 kept no documents.
                documents = state.get("documents", torch.full((len(row),), OWN_ROW))
                columns = Samples(
                    *(t.clone() for t in (state["values"], state["labels"], inputs, documents))
                )
                if any(len(column) != len(row) for column in columns):
                    raise StateError("the saved reservoir has keys and values of unequal length")
                fresh._add(Chosen(draw, hashed, row, place, np.arange(len(row))), columns)
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise StateError(f"the saved reservoir is damaged: {error}") from error
        self.__dict__.update(fresh.__dict__)

    def _rows(self, activations: Activations) -> Integers:
        n = activations.values.shape[0]
        if activations.rows is not None:
            return np.asarray(activations.rows.cpu().numpy(), dtype=np.int64)
        rows = np.arange(self._unnumbered, self._unnumbered + n)
        self._unnumbered += n
        return rows

    def _add(self, found: Chosen, columns: Samples) -> None:
        self._held = Chosen(*(np.concatenate(pair) for pair in zip(self._held, found, strict=True)))
        self._columns.append(columns)
        if len(self._held.row) >= 2 * self.size:
            self._cut()

    def _cut(self) -> None:
        """Sort what is held and drop all but the first `size`."""
        if not self._columns:
            return
        order = np.lexsort((self._held.row, self._held.hash, self._held.draw))[: self.size]
        kept = self._held.lines(order)
        self._held = kept._replace(at=np.arange(len(order)))
        picked = torch.from_numpy(order)
        self._columns = [Samples.joined(self._columns).lines(picked)]
        if len(order) == self.size:
            self._limit = int(kept.draw[-1]), int(kept.hash[-1]), int(kept.row[-1])


def aligned(
    x: Reservoir, y: Reservoir, *, same_places: bool = False
) -> tuple[Tensor, Tensor, Integers]:
    """Samples that both sites kept: x and y float32 [samples, width], and the row of each int64.

    Raises:
        DataError: where with `same_places` (tokens) the places of the two sites differ.
    """
    (left, one), (right, two) = x.samples(), y.samples()
    i, j = in_both(*(np.stack([c.row, c.draw], axis=1) for c in (left, right)))
    if same_places and not np.array_equal(left.place[i], right.place[j]):
        raise DataError("the two sites see different positions of a row, so no sample has a pair")
    # Where a map is coarse, two places of an image may fall on one pixel at both sites.
    places = np.stack([left.row[i], left.place[i], right.place[j]], axis=1)
    _, first = np.unique(places, axis=0, return_index=True)
    first.sort()
    i, j = i[first], j[first]
    return one.values[torch.from_numpy(i)], two.values[torch.from_numpy(j)], left.row[i]


def in_both(one: Integers, other: Integers) -> tuple[Integers, Integers]:
    """Where the lines [samples, 2] that are in both are in each, int64 [common] twice."""
    lines = np.concatenate([one, other])
    names = np.unique(lines, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    split = len(one)
    _, i, j = np.intersect1d(names[:split], names[split:], True, return_indices=True)
    return i, j


def _mask(activations: Activations) -> NDArray[np.bool_]:
    """bool [batch, positions], True where the sample counts."""
    shape = [
        n
        for n, axis in zip(activations.values.shape, activations.axes, strict=True)
        if axis == "batch" or axis in POSITION_AXES
    ]
    whole = np.ones((shape[0], int(np.prod(shape[1:], dtype=np.int64))), dtype=bool)
    if activations.mask is None:
        return whole
    given = activations.mask.cpu().numpy().reshape(shape[0], -1)
    return np.asarray(whole & given)


def _candidates(
    rows: Integers,
    mask: NDArray[np.bool_],
    axes: tuple[str, ...],
    shape: torch.Size,
    seed: int,
) -> Chosen:
    """The samples of a batch in the order of each row's draws."""
    n_rows, n_places = mask.shape
    hashed = _hash(rows, _hash(np.array([seed]), np.zeros(1, dtype=np.uint64)))
    grid = [n for n, a in zip(shape, axes, strict=True) if a in ("depth", "height", "width")]
    if n_places == 1:
        places = np.zeros((n_rows, 1), dtype=np.int64)
    elif grid:
        places = _grid_places(hashed, grid)
    else:
        order = _hash(np.arange(n_places)[None], hashed[:, None])
        # Masked positions go last, so that the draws that count are 0, 1, 2, ...
        places = np.lexsort((order, ~mask), axis=1)
    counts = np.take_along_axis(mask, places, axis=1)
    line, draw = np.nonzero(counts)
    place = places[line, draw]
    row_hash = (hashed >> np.uint64(1)).astype(np.int64)
    return Chosen(draw, row_hash[line], rows[line], place, line * n_places + place)


def _grid_places(hashed: NDArray[np.uint64], grid: list[int]) -> Integers:
    """Flat pixels [rows, draws] at shares of each axis that depend on the row and draw alone."""
    draws = np.arange(min(PLACES, int(np.prod(grid))))
    place = np.zeros((len(hashed), len(draws)), dtype=np.int64)
    for axis, size in enumerate(grid):
        bits = _hash(draws[None] * len(grid) + axis + 1, hashed[:, None])
        share = (bits >> np.uint64(11)).astype(np.float64) / 2**53
        place = place * size + np.minimum((share * size).astype(np.int64), size - 1)
    return place


def _before(found: Chosen, limit: tuple[int, int, int]) -> NDArray[np.bool_]:
    draw, hashed, row = limit
    same = found.draw == draw
    tie = same & (found.hash == hashed) & (found.row < row)
    return np.asarray((found.draw < draw) | (same & (found.hash < hashed)) | tie)


def _hash(values: NDArray[Any], key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 (Steele et al. 2014) of `values` under `key`: uniform in 64 bits."""
    with np.errstate(over="ignore"):
        z = values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        return np.asarray(z ^ (z >> np.uint64(31)))
