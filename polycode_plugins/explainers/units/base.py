"""Units: neurons, random projections, components, directions; all rows of one matrix.

A unit reads one number per token off a site, x . direction - offset. Neurons, projections and
components go through everything that follows in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from polycode_plugins.errors import DataError
from polycode_plugins.precision import full_precision

_SMALL = 64  # sides of a product
_VALUES_AT_ONCE = 2**20  # 4 MB: cache


@dataclass(frozen=True, eq=False)
class Units:
    """Some units of one site.

    Attributes:
        kind: "neuron", "projection", "component", "independent", "feature" or "direction".
        names: one for each unit, unique.
        directions: float32 [units, width].
        offsets: float32 [units], subtracted from the projection; zeros where nothing is centred.
        origin: JSON values that say how they were made (seed, distribution, norm, ...).
        index: int64 [units], the place of the only 1 of each direction, where all are such.
    """

    kind: str
    names: tuple[str, ...]
    directions: Tensor
    offsets: Tensor
    origin: Mapping[str, Any] = field(default_factory=dict)
    index: Tensor | None = None

    def __post_init__(self) -> None:
        if self.directions.dim() != 2 or len(self.names) != self.directions.shape[0]:
            raise DataError(
                f"directions must be [units, width] with one name each, and there are "
                f"{len(self.names)} names for {tuple(self.directions.shape)}"
            )
        if len(set(self.names)) < len(self.names):
            raise DataError("two units have one name; give each a name of its own")
        if not bool(torch.isfinite(self.directions).all()):
            raise DataError("a direction holds NaN or infinity; leave that unit out")
        if not bool(self.directions.any(dim=1).all()):
            raise DataError("a direction is all zeros and reads nothing; leave that unit out")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def width(self) -> int:
        """Features that a direction spans."""
        return int(self.directions.shape[1])

    @property
    def one_sided(self) -> bool:
        """Whether they are never negative, so that there is no other side to explain."""
        return False

    def project(self, values: Tensor) -> Tensor:
        """float32 [..., units]: what the units read off `values` [..., width]."""
        if self.index is not None:
            return values.index_select(-1, self.index.to(values.device)).float()
        with full_precision():
            read = values.float() @ self.directions.to(values.device).T
        return read - self.offsets.to(values.device) if bool(self.offsets.any()) else read

    def by_unit(self, values: Tensor) -> Iterator[tuple[int, Tensor]]:
        """What `project` gives, some units at a time, the values of a unit together.

        So many at a time that what they read stays in the processor's cache.

        Yields:
            The first of the units, and float32 [units, ...], contiguous.
        """
        tokens = values.shape[:-1].numel()
        # BLAS has kernels of their own for small products, which round as the sides are named.
        if self.index is None and min(len(self), tokens) < _SMALL:
            yield 0, rearrange(self.project(values), "... unit -> unit ...").contiguous()
            return
        parts = max(1, min(-(-len(self) * tokens // _VALUES_AT_ONCE), len(self) // _SMALL))
        for part in torch.arange(len(self)).tensor_split(parts):
            first, last = int(part[0]), int(part[-1]) + 1
            yield first, self._read(values, first, last)

    def _read(self, values: Tensor, first: int, last: int) -> Tensor:
        if self.index is not None:
            index = self.index[first:last].to(values.device)
            return rearrange(values, "... feature -> feature ...").index_select(0, index).float()
        directions = self.directions[first:last].to(values.device)
        with full_precision():
            read = directions @ rearrange(values.float(), "... feature -> feature (...)")
        offsets = self.offsets[first:last].to(values.device)
        if bool(offsets.any()):
            read -= offsets[:, None]
        return read.view(-1, *values.shape[:-1])

    def select(self, which: Sequence[int]) -> Units:
        """Some of the units, in the order given."""
        rows = torch.as_tensor(list(which), dtype=torch.int64)
        return Units(
            self.kind,
            tuple(self.names[i] for i in which),
            self.directions[rows],
            self.offsets[rows],
            self.origin,
            None if self.index is None else self.index[rows],
        )
