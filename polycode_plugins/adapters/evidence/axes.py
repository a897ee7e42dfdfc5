"""Which axis of a tensor is what, proven by varying the input.

A dimension that follows the number of rows is the batch, one that follows a length is a place
(position, height, width), one that follows neither holds features, heads or channels. A copy of the
model without hooks (`shadow`) is run on small inputs of several sizes (`trial`): on the meta device
where its code needs no values, else with its own weights. Which axis of the input is the batch is
known from the model's contract (transformers, images), or from what mixes: the rows of a batch stay
to themselves, positions influence one another. A model that cannot be copied is known by the shapes
that come (`Shapes`). Where two readings are left there are no axes but a question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from einops import rearrange
from torch import Tensor

from polycode_plugins.activations import FEATURE_AXES
from polycode_plugins.adapters.evidence.shadow import Leaf, leaves

Order = Literal["batch", "position", "unknown"]  # of axes laid into one: which runs slowest

_LEFT_OUT = ("labels", "cache_position", "use_cache", "position_ids")  # no axis depends on them
_CACHES = ("past", "cache", "mems")  # parts of names
_SPOTS = {0: (), 1: ("position",), 2: ("height", "width"), 3: ("depth", "height", "width")}


@dataclass(frozen=True)
class Reading:
    """What the dimensions of one tensor are.

    Attributes:
        axes: their names, in the order of the tensor; empty when there is a question.
        per_row: how many entries of the batch axis one row of the input has.
        order: where the batch axis holds several entries a row, or all positions of all rows, what
            runs slowest in it; "unknown" for tokens that were routed.
        flat: whether the batch axis also follows the positions.
        routed: whether which entries are there depends on values (the tokens given to an expert).
        why: where there are no axes, why; empty when the tensor was not seen in any trial.
        ask: whether naming the axes would answer it.
    """

    axes: tuple[str, ...] = ()
    per_row: int = 1
    order: Order = "batch"
    flat: bool = False
    routed: bool = False
    why: str = ""
    ask: bool = False


@dataclass(frozen=True)
class Laid:
    """A tensor with its batch axis in front.

    Attributes:
        values: the tensor.
        axes: the names of its axes.
        per_row: entries of the batch axis for each row of the input, which lie side by side; 0 when
            it is not known which rows they are of.
    """

    values: Tensor
    axes: tuple[str, ...]
    per_row: int = 1


def lay(reading: Reading, values: Tensor, rows: int | None, length: int | None) -> Laid | None:
    """A tensor as its reading says; None where its shape contradicts that.

    Args:
        reading: its axes.
        values: the tensor.
        rows: of the input; None when unknown.
        length: positions of the input; None without.
    """
    axes = reading.axes
    if len(axes) != values.dim():
        return None
    at = axes.index("batch")
    if at:
        values = values.movedim(at, 0)
        axes = ("batch", *axes[:at], *axes[at + 1 :])
    size = values.shape[0]
    if reading.routed:
        return Laid(values, axes, per_row=0)
    if rows is None:
        return Laid(values, axes)
    if reading.flat:
        plain = length is not None and size == rows * length and "position" not in axes
        if plain and reading.order != "unknown":
            pattern = "(b p) ... -> b p ..." if reading.order == "batch" else "(p b) ... -> b p ..."
            return Laid(rearrange(values, pattern, b=rows), ("batch", "position", *axes[1:]))
        whole = rows > 0 and size % rows == 0 and reading.order == "batch"
        return Laid(values, axes, per_row=size // rows if whole else 0)
    if size != rows * reading.per_row:
        return None
    return Laid(values, axes, reading.per_row if reading.order == "batch" else 0)


@dataclass(frozen=True)
class Input:
    """The axes of the first tensor that a model reads.

    Attributes:
        batch: the axis of its rows; None while that is a question.
        length: the axis of its positions; None without.
        why: why the rows are not known.
    """

    batch: int | None
    length: int | None = None
    why: str = ""

    def sizes(self, main: Leaf | None) -> tuple[int | None, int | None]:
        """Rows and positions of a call whose first tensor is `main`; None where unknown."""
        if main is None:
            return None, None
        shape = main.values.shape
        axes = (self.batch, self.length)
        rows, length = (shape[a] if a is not None and a < len(shape) else None for a in axes)
        return rows, length


def main_leaf(arguments: Mapping[str, Any]) -> Leaf | None:
    """The tensor that tells how many rows and positions a call reads."""
    found = [leaf for leaf in leaves(kept(arguments)) if leaf.values.dim()]
    if arguments.get("input_ids") is None and arguments.get("inputs_embeds") is None:
        # While text is generated the encoder's output stands where its input was.
        for leaf in found:
            if leaf.name in ("decoder_input_ids", "decoder_inputs_embeds"):
                return leaf
    return found[0] if found else None


def depends_not(name: str, value: Any) -> bool:
    """Whether no axis depends on an argument: a cache, a label, a mask."""
    last = name.rpartition(".")[2]
    cache = any(part in last for part in _CACHES) and not isinstance(value, Tensor)
    return last in _LEFT_OUT or "mask" in last or cache


def kept(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that axes depend on."""
    return {name: value for name, value in arguments.items() if not depends_not(name, value)}


def names_of(
    ndim: int, at: int, spots: Sequence[int], fixed: Sequence[int]
) -> tuple[str, ...] | None:
    """Names for dimensions: `at` is the batch, `spots` are places, `fixed` follow nothing.

    None where they have no usual meaning.
    """
    if len(spots) > 3 or any(d < at for d in fixed):
        return None
    names = [""] * ndim
    names[at] = "batch"
    for d, name in zip(spots, _SPOTS[len(spots)], strict=True):
        names[d] = name
    if not fixed:
        # [batch, time] of a signal: what follows the length is all there is.
        if ndim != 2 or len(spots) != 1:
            return None
        names[spots[0]] = "feature"
        return tuple(names)
    if len(fixed) == 1:
        behind = not spots or fixed[0] > spots[-1]
        names[fixed[0]] = "feature" if behind else "channel"
        return tuple(names)
    if len(fixed) == 2 and spots and fixed[1] > spots[-1]:
        names[fixed[0]], names[fixed[1]] = "head", "feature"
        return tuple(names)
    return None


class Shapes:
    """The readings that the shapes of one tensor leave, over the calls that were seen.

    For models that cannot be tried. A dimension may be the batch if it has had the size of the
    batch in every call, and the position if it has had that of the positions.
    """

    def __init__(self) -> None:
        self._left: set[tuple[int, int | None]] | None = None
        self._ndim = 0
        self._inputs: set[tuple[int | None, int | None]] = set()

    def note(self, shape: Sequence[int], rows: int | None, length: int | None) -> None:
        """Take in one call: the shape of the tensor, and rows and positions of the input."""
        self._ndim = len(shape)
        self._inputs.add((rows, length))
        pairs: set[tuple[int, int | None]] = set()
        for b in (d for d, n in enumerate(shape) if n == rows):
            spots = [d for d, n in enumerate(shape) if n == length and d != b]
            pairs |= {(b, p) for p in spots} or {(b, None)}
        self._left = pairs if self._left is None else self._left & pairs

    def reading(self) -> Reading | None:
        """The one reading that is left; None where there are several, or none."""
        if self._left is None or len(self._left) != 1:
            return None
        ((at, spot),) = self._left
        # That many rows by chance, as tokens routed to an expert are, would not come twice.
        chance = spot is None and any(length is not None for _, length in self._inputs)
        if chance and len({rows for rows, _ in self._inputs}) < 2:
            return None
        spots = [] if spot is None else [spot]
        fixed = [d for d in range(self._ndim) if d not in (at, spot)]
        axes = names_of(self._ndim, at, spots, fixed)
        return None if axes is None else Reading(axes)


def width_of(shape: Sequence[int], axes: Sequence[str]) -> int:
    """Features of a sample with positions as samples."""
    return math.prod(n for n, axis in zip(shape, axes, strict=True) if axis in FEATURE_AXES)
