"""Trials of a copy of a model on inputs of several sizes: which dimension follows which."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polycode_plugins.adapters.evidence.axes import (
    Input,
    Order,
    Reading,
    depends_not,
    main_leaf,
    names_of,
)
from polycode_plugins.adapters.evidence.calls import (
    Call,
    argument_names,
    holds_all,
    named_arguments,
)
from polycode_plugins.adapters.evidence.changes import altered, differing, entries, told_apart
from polycode_plugins.adapters.evidence.layout import axes_of, evidence
from polycode_plugins.adapters.evidence.shadow import (
    LARGE,
    Leaf,
    Place,
    Seen,
    Shadow,
    Watch,
    changed,
    leaves,
)
from polycode_plugins.adapters.undisturbed import seed_torch
from polycode_plugins.devices import as_found
from polycode_plugins.errors import DataError, ModelError, SiteError

Member = tuple[str, int]  # an argument and a dimension of it
_SMALL = (3, 5, 11, 13)  # sizes of trials, none a multiple of another
_STREAMS = ("decoder", "tgt", "pixel", "image", "video")  # parts of names


@dataclass(frozen=True)
class _Group:
    """Dimensions of the arguments that change together."""

    members: tuple[Member, ...]

    def of(self, name: str) -> int | None:
        """The dimension of the argument `name` that is one of them."""
        return next((d for n, d in self.members if n == name), None)


class Trial:
    """A shadow of the module that was called, run on inputs of other sizes.

    Args:
        call: the call whose arguments are resized.
        places: the tensors to look at.
        device: "meta" to run without values, None with the weights.
        contract: whether the first axis of every argument is known to be the batch.

    Raises:
        ModelError: for a model that cannot be copied.
        Exception: whatever its code raises when it does not even run on inputs as they were.
    """

    def __init__(
        self, call: Call, places: Sequence[Place], device: str | None, *, contract: bool
    ) -> None:
        self._shadow = Shadow(call.module, device)
        self._device = device
        self._watch = Watch(self._shadow, places, compared=not contract)
        self._contract = contract
        self._args = tuple(None if depends_not(n, v) else v for n, v in _positional(call))
        self._kwargs = {k: v for k, v in call.kwargs.items() if not depends_not(k, v)}
        self._sizes: dict[Member, int] = {}  # those that differ from what was given
        try:
            self._begin()
        except (TypeError, AttributeError, ValueError):  # it cannot do without what was left out
            self._args, self._kwargs = call.args, dict(call.kwargs)
            self._begin()

    def _begin(self) -> None:
        self._leaves = {leaf.name: leaf for leaf in self._given()}
        main = main_leaf(named_arguments(self._shadow.model, self._args, self._kwargs))
        if main is None:
            raise ModelError("it is called without a tensor")
        self._main = main
        self._base = self._first_run()
        self._varied: dict[_Group, tuple[Seen, int, int]] = {}  # run, size before and after
        for group in self._groups():
            self._vary(group)

    def _given(self) -> list[Leaf]:
        return leaves(named_arguments(self._shadow.model, self._args, self._kwargs))

    # -- runs ------------------------------------------------------------------------------------

    def _groups(self) -> list[_Group]:
        """Dimensions of one size at one place; of one stream (encoder, picture), but for rows."""
        groups: dict[Any, list[Member]] = {}
        for leaf in self._leaves.values():
            values = leaf.values
            for dim, size in enumerate(values.shape):
                if dim == 1 and values.dim() == 2 and self._samples(leaf):
                    continue  # [samples, features]
                stream = _stream(leaf.name) if self._contract and dim else ""
                groups.setdefault((stream, dim, size), []).append((leaf.name, dim))
        return [_Group(tuple(members)) for members in groups.values()]

    def _samples(self, leaf: Leaf) -> bool:
        return leaf.values.is_floating_point() and not leaf.name.endswith("input_values")

    def _first_run(self) -> Seen:
        """A run on small inputs, or where the model does not take them on such as were given."""
        failure: Exception | None = None
        for small in ((0, 1), (0,), (1,), ()):
            self._sizes = {}
            spare = iter(_SMALL)
            for group in self._groups():
                name, dim = group.members[0]
                if dim in small and (dim == 0 or self._leaves[name].values.dim() < 4):
                    wanted = next(spare, None)
                    self._sizes |= {} if wanted is None else dict.fromkeys(group.members, wanted)
            try:
                return self._run()
            except Exception as error:  # whatever the model's code raises
                failure = error
        assert failure is not None
        raise failure

    def _vary(self, group: _Group) -> None:
        """Give a group another size, alone or together with all else of its size."""
        done = {member for known in self._varied for member in known.members}
        if done & set(group.members):
            return
        before = self._size(group.members[0])
        every = ((leaf.name, d) for leaf in self._leaves.values() for d in range(leaf.values.dim()))
        same = [member for member in every if self._size(member) == before]
        wider = _Group(tuple(dict.fromkeys([*group.members, *same])))
        after = before + 4 if before < 8 else math.ceil(1.5 * before)
        for candidate in dict.fromkeys((group, wider)):
            try:
                seen = self._run(dict.fromkeys(candidate.members, after))
            except Exception:
                continue
            self._varied[candidate] = (seen, before, after)
            return

    def _size(self, member: Member) -> int:
        name, dim = member
        return self._sizes.get(member, self._leaves[name].values.shape[dim])

    def _run(self, sizes: Mapping[Member, int] | None = None, other: int | None = None) -> Seen:
        """One pass on resized arguments; with `other` the middle of that dimension is changed."""
        wanted = {**self._sizes, **(sizes or {})}

        def fit(name: str, values: Tensor) -> Tensor:
            for dim in range(values.dim()):
                size = wanted.get((name, dim), values.shape[dim])
                if size != values.shape[dim]:
                    index = torch.arange(size, device=values.device) % max(1, values.shape[dim])
                    values = values.index_select(dim, index)
            if name == self._main.name and not self._contract:
                values = told_apart(values)
            if name == self._main.name and other is not None:
                values = altered(values, other)
            return values if self._device is None else values.to(self._device)

        names = argument_names(self._shadow.model)
        args = [
            changed(
                v, fit, "" if isinstance(v, Mapping) else names[i] if i < len(names) else str(i)
            )
            for i, v in enumerate(self._args)
        ]
        alone = holds_all(args, self._kwargs)
        kwargs = {
            k: changed(v, fit, "" if alone and isinstance(v, Mapping) else k)
            for k, v in self._kwargs.items()
        }
        # What draws or counts gives the same each time.
        self._shadow.rewind()
        seed_torch(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        with as_found():
            return self._watch.run(self._shadow, args, kwargs)

    # -- the input -------------------------------------------------------------------------------

    def input(self, of_rows: bool) -> Input:
        """The axes of the input.

        Args:
            of_rows: whether data were cut into batches along its first axis.
        """
        name, shape = self._main.name, tuple(self._main.values.shape)
        mine = {g: d for g in self._varied if (d := g.of(name)) is not None}
        if not mine:
            raise ModelError("no size of its input can change")
        if self._contract:
            batch = next((g for g, d in mine.items() if d == 0), None)
            if batch is None:
                raise ModelError("the number of its rows cannot change")
        else:
            leading = {g: d for g, d in mine.items() if d < 2}
            separate = {g: self._separate(g) for g in leading}
            if all(answer is None for answer in separate.values()):
                raise ModelError("nothing in it was seen to depend on its input")
            apart = [g for g, answer in separate.items() if answer]
            if of_rows and len(apart) > 1:
                apart = [g for g in apart if leading[g] == 0]
            if of_rows and apart and leading[apart[0]] == 1:
                return Input(None, None, _SECOND.format(shape=shape))
            if len(apart) != 1:
                return Input(None, None, (_ALIKE if apart else _MIXED).format(shape=shape))
            batch = apart[0]
        self._batch = batch
        lengths = [d for g, d in mine.items() if g is not batch]
        return Input(mine[batch], min(lengths) if lengths else None)

    def _separate(self, group: _Group) -> bool | None:
        """Whether what lies along these dimensions stays to itself in the whole model.

        None where no output has them any more.
        """
        dim = group.of(self._main.name)
        other = self._run(other=dim)
        wider, size, _ = self._varied[group]
        middle, judged = size // 2, False
        shapes = wider.outputs if len(wider.outputs) == len(self._base.outputs) else None
        for index, (a, b) in enumerate(zip(self._base.outputs, other.outputs, strict=False)):
            if a.shape != b.shape or a.numel() > LARGE:
                continue
            dims = [d for d, n in enumerate(a.shape) if n and n % size == 0]
            if shapes is not None and shapes[index].dim() == a.dim():
                dims = [d for d in dims if shapes[index].shape[d] != a.shape[d]]
            else:
                dims = [d for d in dims if a.shape[d] == size]
            if len(dims) != 1:
                continue
            places = differing(a, b, dims[0], self._noise())
            own, spread = entries(a.shape[dims[0]], size, middle)
            if not (places <= own or places <= spread):
                return False
            judged = judged or bool(places)
        return True if judged else None

    def _noise(self) -> float:
        """How much rows may change with one another: dynamic quantisation has one scale for all."""
        kinds = (type(m).__module__ for m in self._shadow.model.modules())
        return 0.05 if any("quantized.dynamic" in kind for kind in kinds) else 1e-6

    # -- the tensors -----------------------------------------------------------------------------

    def reading(self, place: Place, given: Input) -> Reading:
        """What the dimensions of the tensor at `place` follow."""
        if given.batch is None:
            return Reading(why=given.why, ask=True)
        base = self._base.asked.get(place)
        runs = {group: seen.asked.get(place) for group, (seen, _, _) in self._varied.items()}
        if isinstance(base, str):
            return Reading(why=base)
        found = [t for t in (base, *runs.values()) if isinstance(t, Tensor)]
        if not found:
            return Reading()
        if base is None or any(t is None for t in runs.values()):
            return _routed(found[0])  # an expert that got no token in one of the runs
        if any(t.dim() != base.dim() for t in found):
            return Reading(why="the number of its axes depends on the size of the input", ask=True)
        shapes = {g: t.shape for g, t in runs.items() if isinstance(t, Tensor)}
        follows = [
            {g for g, shape in shapes.items() if shape[d] != base.shape[d]}
            for d in range(base.dim())
        ]
        rows = [d for d, groups in enumerate(follows) if self._batch in groups]
        _, before, after = self._varied[self._batch]
        for d in rows:
            # A number of rows that is in no proportion depends on what the tokens are.
            if base.shape[d] * after != shapes[self._batch][d] * before:
                return _routed(base)
        if len(rows) != 1:
            return Reading(why=_CONSTANT if not rows else _CROSSED)
        return self._named(place, base, follows, rows[0])

    def _named(self, place: Place, base: Tensor, follows: list[set[_Group]], at: int) -> Reading:
        spots = [d for d, groups in enumerate(follows) if groups and d != at]
        fixed = [d for d, groups in enumerate(follows) if not groups]
        flat = follows[at] != {self._batch}
        if flat and self._contract and self._device is None and self._changes_size(place, base):
            return _routed(base)
        if len(spots) > 1 and not any(d > spots[-1] for d in fixed) and self._reads_text():
            return Reading(why=_WEIGHTS)
        axes = names_of(base.dim(), at, spots, fixed)
        whole = math.prod(self._varied[g][1] for g in follows[at])
        if flat and not spots and at == 0 and len(fixed) == 2 and base.shape[0] == whole:
            axes = ("batch", "head", "feature")  # the positions are in the first axis
        if axes is None and not spots and at == 0:
            axes = self._by_layout(place[0], base)
        if axes is None:
            sizes = " and ".join(str(base.shape[d]) for d in fixed)
            why = f"the axes of size {sizes} follow neither rows nor positions"
            why = why if fixed else "all of its axes follow rows or positions"
            return Reading(why=why, ask=True)
        per_row = base.shape[at] // self._varied[self._batch][1]
        order: Order = self._order(place, base, at) if flat or per_row > 1 else "batch"
        return Reading(axes, per_row=1 if flat else max(1, per_row), order=order, flat=flat)

    def _changes_size(self, place: Place, base: Tensor) -> bool:
        """Whether the shape depends on values."""
        other = self._run(other=0).asked.get(place)
        return not isinstance(other, Tensor) or other.shape != base.shape

    def _reads_text(self) -> bool:
        return self._main.values.dim() < 4

    def _by_layout(self, module: nn.Module, base: Tensor) -> tuple[str, ...] | None:
        """The axes where no length can vary (the patches of a picture), by what modules do.

        Those that return tensors of this very shape are the evidence.
        """
        alike = [(m, base.dim()) for m, shape in self._base.shapes if shape == tuple(base.shape)]
        votes = evidence(alike)
        if not votes:
            return None
        try:
            return axes_of("it", module, base, votes)
        except (SiteError, DataError):
            return None

    def _order(self, place: Place, base: Tensor, at: int) -> Order:
        """Whether the entries of one row lie side by side in an axis that holds several."""
        if self._device is not None:
            raise ModelError("the order of the rows needs values")
        other = self._run(other=self._batch.of(self._main.name)).asked.get(place)
        if not isinstance(other, Tensor) or base.shape != other.shape:
            return "unknown"
        _, count, _ = self._varied[self._batch]
        places = differing(base, other, at)
        own, spread = entries(base.shape[at], count, count // 2)
        if not places or not (places <= own or places <= spread):
            return "unknown"
        return "batch" if places <= own else "position"


_ALIKE = (
    "nothing in this model tells which axis of its input {shape} is the batch and which the "
    "position, since it does the same at each of them"
)
_MIXED = "this model mixes what lies along each axis of its input {shape}, so none is its batch"
_SECOND = (
    "this model mixes what lies along the first axis of its input {shape} and keeps apart what "
    "lies along the second, so it reads [position, batch, ..], and the data were cut into batches "
    "along the first"
)
_CONSTANT = "none of its axes follows the number of rows: it is the same for every row"
_CROSSED = "two of its axes follow the number of rows: it compares rows"
_WEIGHTS = (
    "two of its axes follow the number of positions and none behind them holds features: these are "
    "attention weights, no activations"
)


def _routed(values: Tensor) -> Reading:
    if values.dim() != 2:
        return Reading(why="which rows it has depends on what they hold", ask=True)
    return Reading(("batch", "feature"), order="unknown", routed=True)


def _positional(call: Call) -> list[tuple[str, Any]]:
    names = argument_names(call.module)
    return [(names[i] if i < len(names) else str(i), v) for i, v in enumerate(call.args)]


def _stream(name: str) -> str:
    """Which input an argument is of: encoder and decoder, text and picture have their own."""
    return next((part for part in _STREAMS if part in name), "")
