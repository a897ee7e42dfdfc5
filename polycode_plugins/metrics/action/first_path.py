"""The beginning of the first path in a few random projections: what a report can draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from polycode_plugins.activations import Activations, Positions
from polycode_plugins.errors import StateError
from polycode_plugins.metrics.action.increments import Along, consecutive, lay_out
from polycode_plugins.metrics.action.trajectory import Floats, projected
from polycode_plugins.metrics.base import Accumulator

PROJECTIONS = 8
MAX_POINTS = 100


class FirstPath(Accumulator):
    """Points of the first path of the data in `PROJECTIONS` random projections, `MAX_POINTS` long.

    Paths are those of `Increments`. Along "position" it is the first row that has two successive
    unmasked positions, along "rows" the first of the data that are kept (the first position of
    each, where every position is a path). Only the lowest row numbers are kept, so any batch size,
    order and merge tree gives the same; memory is `PROJECTIONS` x `MAX_POINTS` x `dimensions`.

    Args:
        path: as of `Increments`.
        positions: as of `Increments`.
        dimensions: of a projection.
        seed: of the projections, those of `trajectories`.
    """

    name = "first-path"

    def __init__(
        self,
        path: Along | None = None,
        positions: Positions | None = None,
        dimensions: int = 3,
        seed: int = 0,
    ) -> None:
        self._asked, self._positions = path, positions
        self._dimensions, self._seed = dimensions, seed
        self._kept: dict[int, Tensor] = {}  # by row number, float64 [points, projections * k]
        self._limit = MAX_POINTS  # rows to keep: one along positions
        self._next: int | None = None  # number of the next row that has none of its own

    def options(self) -> dict[str, Any]:
        """The settings that define the statistic."""
        return {
            "path": self._asked,
            "positions": self._positions,
            "dimensions": self._dimensions,
            "seed": self._seed,
        }

    @property
    def n_samples(self) -> int:
        """Points that are kept."""
        return sum(len(points) for points in self._kept.values())

    def update(self, activations: Activations) -> None:
        """Take in one batch; see `Increments.update` for what it refuses."""
        if not activations.values.numel():
            return
        count = activations.values.shape[0]
        if activations.rows is not None:
            numbers = activations.rows.tolist()
        else:
            numbers = list(range(self._next or 0, (self._next or 0) + count))
            self._next = numbers[-1] + 1
        held = sorted(self._kept)
        if self._too_late(min(numbers), held):
            return
        path, points, mask = lay_out(activations, self._asked, self._positions)
        if path == "position":
            mask = _first_document(activations, mask)
        self._limit = 1 if path == "position" else MAX_POINTS
        wanted: dict[int, Tensor] = {}
        for row in sorted(range(count), key=numbers.__getitem__):
            if len(wanted) == self._limit or self._too_late(numbers[row], held):
                break
            seen = _beginning(points[row], None if mask is None else mask[row], path)
            if seen is not None:
                wanted[numbers[row]] = seen
        if not wanted:
            return
        parts = projected(
            torch.cat([seen.double() for seen in wanted.values()]),
            range(PROJECTIONS),
            self._dimensions,
            self._seed,
        )
        drawn = np.concatenate([part for _, part in parts])
        flat = torch.from_numpy(rearrange(drawn, "n time k -> time (n k)"))
        each = torch.split(flat, [len(seen) for seen in wanted.values()])
        self._take(dict(zip(wanted, each, strict=True)))

    def merge(self, other: Self) -> None:
        """Keep the first rows of both."""
        if other.key() != self.key():
            raise StateError(f"{other.key()} cannot be merged into {self.key()}")
        if other._kept:
            self._limit = other._limit
        offset = 0
        if other._next is not None:
            # A number is left out in between, so that the two never become one path.
            offset = 0 if self._next is None else self._next + 1
            self._next = offset + other._next
        self._take({number + offset: points for number, points in other._kept.items()})

    def points(self) -> Floats | None:
        """float64 [PROJECTIONS, time, dimensions] of at least 2 time steps; None without a path."""
        numbers = sorted(self._kept)
        for start, stop in consecutive(numbers):
            path = torch.cat([self._kept[number] for number in numbers[start:stop]])
            if len(path) > 1:
                found: Floats = rearrange(path, "time (n k) -> n time k", n=PROJECTIONS).numpy()
                return found.copy()
        return None

    def state(self) -> dict[str, Tensor]:
        """Numbers and lengths of the rows that are kept, and their points."""
        numbers = sorted(self._kept)
        following = -1 if self._next is None else self._next
        state = {"counts": torch.tensor([self._limit, following])}
        if numbers:
            state["numbers"] = torch.tensor(numbers)
            state["lengths"] = torch.tensor([len(self._kept[number]) for number in numbers])
            state["points"] = torch.cat([self._kept[number] for number in numbers])
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace what has been seen by `state`."""
        fresh = self.fresh()
        try:
            limit, following = (int(count) for count in state["counts"])
            fresh._limit, fresh._next = limit, None if following < 0 else following
            if "numbers" in state:
                points = state["points"].double().reshape(-1, PROJECTIONS * self._dimensions)
                parts = torch.split(points, state["lengths"].tolist())
                numbers = state["numbers"].tolist()
                fresh._kept = {n: p.clone() for n, p in zip(numbers, parts, strict=True)}
        except (KeyError, ValueError, RuntimeError) as error:
            raise StateError(f"the saved first path is damaged: {error}") from error
        self.__dict__.update(fresh.__dict__)

    def _take(self, rows: Mapping[int, Tensor]) -> None:
        together = {**rows, **self._kept}
        self._kept = {number: together[number] for number in sorted(together)[: self._limit]}

    def _too_late(self, number: int, held: list[int]) -> bool:
        return len(held) >= self._limit and number >= held[self._limit - 1]


def _first_document(activations: Activations, mask: Tensor | None) -> Tensor | None:
    """The mask [rows, positions] with what follows the first document of each row left out."""
    documents = activations.documents
    if documents is None or documents.dim() == 1:
        return mask
    if mask is None:
        mask = torch.ones_like(documents, dtype=torch.bool)
    mask = mask.cpu().expand(documents.shape)
    first = documents.cpu().gather(1, mask.int().argmax(dim=1, keepdim=True))
    return mask & (documents.cpu() == first)


def _beginning(points: Tensor, mask: Tensor | None, path: Along) -> Tensor | None:
    """The part [points, width] of one row [places, width] that is on a path; None without one."""
    if path == "rows":
        return points[:1] if mask is None or bool(mask.all()) else None
    if mask is None:
        return points[:MAX_POINTS] if len(points) > 1 else None
    places = rearrange(torch.nonzero(mask.expand(len(points))), "place 1 -> place").tolist()
    for start, stop in consecutive(places):
        if stop - start > 1:
            return points[places[start] : places[start] + min(stop - start, MAX_POINTS)]
    return None
