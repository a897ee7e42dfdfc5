"""Units: neurons, random projections, components, directions; all rows of one matrix.

A unit reads one number per token off a site, x . direction - offset. Neurons, projections and
components go through everything that follows in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.errors import DataError
from polycode_plugins.precision import full_precision

Distribution = Literal["gaussian", "rademacher", "sphere"]
_SMALL = 64  # sides of a product
_VALUES_AT_ONCE = 2**20  # 4 MB: cache
DISTRIBUTIONS = ("gaussian", "rademacher", "sphere")


@dataclass(frozen=True, eq=False)
class Units:
    """Some units of one site.

    Attributes:
        kind: "neuron", "projection", "component", "independent" or "direction".
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
            yield 0, self.project(values).movedim(-1, 0).contiguous()
            return
        parts = max(1, min(-(-len(self) * tokens // _VALUES_AT_ONCE), len(self) // _SMALL))
        for part in torch.arange(len(self)).tensor_split(parts):
            first, last = int(part[0]), int(part[-1]) + 1
            yield first, self._read(values, first, last)

    def _read(self, values: Tensor, first: int, last: int) -> Tensor:
        if self.index is not None:
            index = self.index[first:last].to(values.device)
            return values.movedim(-1, 0).index_select(0, index).float()
        directions = self.directions[first:last].to(values.device)
        with full_precision():
            read = directions @ values.float().reshape(-1, self.width).T
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


def neurons(width: int, n: int | Sequence[int] | None = None, *, seed: int = 0) -> Units:
    """Single features of a site: all of them, `n` drawn without replacement, or those listed.

    Raises:
        DataError: for a neuron that does not exist.
    """
    if n is None or (isinstance(n, int) and n >= width):
        chosen = np.arange(width)
    elif isinstance(n, int):
        chosen = np.sort(np.random.default_rng([seed, 0]).choice(width, n, replace=False))
    else:
        chosen = np.asarray(list(n), dtype=np.int64)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < width):
            raise DataError(f"the site has neurons 0 to {width - 1}; {chosen.max()} is not one")
    index = torch.from_numpy(np.asarray(chosen, dtype=np.int64))
    directions = torch.zeros(len(chosen), width)
    directions[torch.arange(len(chosen)), index] = 1
    origin = {"of": width, "seed": seed if isinstance(n, int) else None}
    names = tuple(f"neuron {i}" for i in chosen)
    return Units("neuron", names, directions, torch.zeros(len(chosen)), origin, index)


def projections(
    width: int,
    n: int,
    *,
    seed: int = 0,
    distribution: Distribution = "gaussian",
    norm: float | None = 1.0,
) -> Units:
    """Random directions.

    Args:
        width: features of the site.
        n: how many.
        seed: of the draw; equal seeds give equal directions, whatever `n`.
        distribution: of the entries: "gaussian" N(0, 1/width), "rademacher" +-1/sqrt(width), or
            "sphere", uniform on the sphere (a Gaussian scaled to its length).
        norm: length that each is scaled to, 1 by default as a neuron's is; None leaves it.

    Raises:
        DataError: for an unknown distribution.
    """
    if distribution not in DISTRIBUTIONS:
        raise DataError(
            f"unknown distribution {distribution!r}; choose from {', '.join(DISTRIBUTIONS)}"
        )
    rng = np.random.default_rng([seed, 1])
    if distribution == "rademacher":
        drawn = rng.choice([-1.0, 1.0], size=(n, width)) / np.sqrt(width)
    else:
        drawn = rng.normal(size=(n, width)) / np.sqrt(width)
    length = 1.0 if distribution == "sphere" and norm is None else norm
    if length is not None:
        drawn *= length / np.linalg.norm(drawn, axis=1, keepdims=True)
    origin = {"seed": seed, "distribution": distribution, "norm": length}
    names = tuple(f"projection {i}" for i in range(n))
    made = torch.from_numpy(drawn.astype(np.float32))
    return Units("projection", names, made, torch.zeros(n), origin)


def directions(
    matrix: Tensor | np.ndarray[Any, Any],
    names: Sequence[str] | None = None,
    *,
    kind: str = "direction",
    offsets: Tensor | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Units:
    """Directions of one's own (a decoder's rows, a probe), [units, width] or [width], as given."""
    made = torch.as_tensor(matrix).detach().to("cpu", torch.float32)
    made = made[None] if made.dim() == 1 else made
    labels = tuple(names) if names is not None else tuple(f"{kind} {i}" for i in range(len(made)))
    return Units(
        kind,
        labels,
        made,
        torch.zeros(len(made)) if offsets is None else offsets.to("cpu", torch.float32),
        origin or {},
    )
