"""Batches of tensors, as any model takes them: from tensors, rows, data sets or loaders."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polycode_plugins.activations import Tokens
from polycode_plugins.adapters.base import Batch
from polycode_plugins.data.collation import collated
from polycode_plugins.data.incoming import Incoming, incoming
from polycode_plugins.data_options import DataOptions
from polycode_plugins.devices import moved
from polycode_plugins.errors import DataError, ModelError
from polycode_plugins.files.content import ContentDigest
from polycode_plugins.row_names import Repeats, content


def tensor_batches(data: Any, options: DataOptions, *, images: bool = False) -> Iterator[Batch]:
    """Batches of tensors, of rows that are put together, or of an iterable of batches.

    See `ModuleAdapter.batches`.

    Args:
        images: whether the model reads images, see `data.incoming`.
    """
    if isinstance(data, str | Path) or data is None:
        raise DataError(
            f"this adapter reads tensors, rows or batches of them, not "
            f"{'the embedded texts' if data is None else repr(str(data))}; give tensors, a data "
            "set or a DataLoader"
        )
    given = data
    if not isinstance(data, Incoming):
        given = incoming(data, text_field=options.text_field, images=images)
    if given.kind in ("texts", "pictures"):
        raise DataError(_UNREAD[given.kind])
    if given.kind == "array":
        yield from _of_columns({"": given.items}, options)
    elif given.kind == "columns":
        yield from _of_columns(given.items, options)
    elif given.kind == "rows":
        yield from _of_rows(given.items, options)
    else:
        yield from _of_batches(given.items, options)


_UNREAD = {
    "texts": "the data yields strings, and here a batch must hold a tensor [batch, ...]; tokenise "
    "the texts, or give them to a model of TransformerLens, transformers (with its tokenizer) or "
    "nnsight, or load it by name",
    "pictures": "the data are pictures, and nothing tells how this model wants them prepared; make "
    "tensors [rows, channel, height, width] of them (torchvision.transforms), or use "
    "adapter='torchvision' with transform=",
}


def _of_columns(columns: Mapping[str, Tensor], options: DataOptions) -> Iterator[Batch]:
    """Batches of one tensor (of no name) or of several with as many rows."""
    whole = columns.get("")
    first = next(iter(columns.values()))
    if first.dim() < (1 if whole is None else 2) or first.shape[0] == 0:
        raise DataError(
            f"a tensor of inputs needs shape [rows, ...] with at least one row, and this one "
            f"is {tuple(first.shape)}"
        )
    rank, world = options.shard
    limit = options.limit
    rows = torch.arange(first.shape[0])[:limit][rank::world]
    read = {name: column[:limit] for name, column in columns.items()}
    if options.content is not None:
        options.content.add_value(read if whole is None else read[""])
    numbers = torch.arange(first.shape[0])[:limit]
    names = _names_of(read, len(numbers))
    again = None if names is None else Repeats().documents(names, numbers)
    for start in range(0, rows.shape[0], options.batch_size):
        part = rows[start : start + options.batch_size]
        inputs = {name: column[part] for name, column in columns.items()}
        batch = as_batch(inputs if whole is None else inputs[""], 0)
        yield replace(batch, rows=part, repeats=None if again is None else again[part])


def _of_rows(items: Iterable[Any], options: DataOptions) -> Iterator[Batch]:
    """Batches of rows that are read one by one."""
    rank, world = options.shard
    own: list[tuple[int, int, Any]] = []
    repeats = Repeats()
    for index, row in enumerate(islice(items, options.limit)):
        first = repeats.first(_name_of_row(row), index)
        if options.content is not None:
            options.content.add_value(row)
        if index % world == rank:
            own.append((index, first, row))
        if len(own) == options.batch_size:
            yield _together(own)
            own = []
    if own:
        yield _together(own)


def _together(held: list[tuple[int, int, Any]]) -> Batch:
    inputs, labels = collated([row for _, _, row in held], held[0][0])
    rows, firsts = (torch.tensor([one[i] for one in held]) for i in (0, 1))
    again = None if torch.equal(rows, firsts) else firsts
    return replace(as_batch(inputs, 0), rows=rows, repeats=again, labels=labels)


def _name_of_row(row: Any) -> int:
    digest = ContentDigest()
    digest.add_value(row[0] if isinstance(row, tuple | list) and len(row) == 2 else row)
    return int(digest.hexdigest()[:16], 16)


def _with_repeats(batch: Batch, repeats: Repeats) -> Batch:
    """The batch, with what of its rows has come before."""
    names = _names_of(batch.inputs, len(batch))
    again = None if names is None else repeats.documents(names, batch.rows)
    return replace(batch, repeats=again)


def _names_of(inputs: Any, count: int) -> Tensor | None:
    """int64 [rows], equal for equal rows of an input; None where they are not along first axes."""
    total: Tensor | None = None
    tensors: list[Tensor] = []
    _each(inputs, tensors.append)
    for values in tensors:
        if values.dim() and len(values) == count and not values.is_complex():
            found = content(values.detach().reshape(count, -1))
            total = found if total is None else total * 31 + found
        elif values.dim() > 1:
            return None
    return total


def _of_batches(items: Iterable[Any], options: DataOptions) -> Iterator[Batch]:
    """The batches of a loader; those without a row are passed over."""
    rank, world = options.shard
    limit = options.limit
    start = taken = 0
    repeats = Repeats()
    for item in items:
        batch = as_batch(item, start)
        if not len(batch):
            continue
        batch = _with_repeats(batch, repeats)
        if limit is not None and start + len(batch) > limit:
            batch = _head(batch, limit - start)
        start += len(batch)
        if options.content is not None:
            parts = (batch.inputs, batch.mask, batch.documents, batch.labels)
            options.content.add_value(parts)
        if taken % world == rank:
            yield batch
        taken += 1
        if limit is not None and start >= limit:
            return
    if start == 0:
        raise DataError("the data holds no row; check the path or the DataLoader")


def _head(batch: Batch, count: int) -> Batch:
    """The first `count` rows of a batch."""
    n = len(batch)

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[:count] if value.dim() and value.shape[0] == n else value
        if isinstance(value, Mapping):
            return {k: cut(v) for k, v in value.items()}
        return tuple(cut(v) for v in value) if isinstance(value, tuple) else value

    return Batch(
        cut(batch.inputs),
        rows=batch.rows[:count],
        documents=cut(batch.documents),
        mask=cut(batch.mask),
        labels=cut(batch.labels),
        repeats=cut(batch.repeats),
        tokens=None if batch.tokens is None else replace(batch.tokens, ids=cut(batch.tokens.ids)),
    )


def as_batch(item: Any, start: int) -> Batch:
    """One element of a DataLoader as a Batch whose rows count from `start`."""
    if isinstance(item, Batch):
        return replace(item, rows=torch.arange(start, start + len(item)))
    labels: Tensor | None = None
    inputs = item
    if isinstance(item, list | tuple):
        if len(item) not in (1, 2):
            raise DataError(
                f"a batch of {len(item)} parts is ambiguous; yield a tensor, (inputs, labels), or "
                "a dict of keyword arguments"
            )
        inputs = item[0]
        if len(item) == 2 and isinstance(item[1], Tensor) and item[1].dim() == 1:
            labels = item[1]
    if isinstance(inputs, Mapping):
        inputs = dict(inputs)
        first = next((v for v in inputs.values() if isinstance(v, Tensor)), None)
    else:
        first = inputs if isinstance(inputs, Tensor) else None
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "biuf":
        inputs = first = torch.as_tensor(inputs)
    if isinstance(inputs, str):
        raise DataError(_UNREAD["texts"])
    if first is None or first.dim() == 0:
        raise DataError(
            f"a batch must hold a tensor [batch, ...], and this one is a {type(inputs).__name__}"
        )
    return Batch(
        inputs,
        rows=torch.arange(start, start + first.shape[0]),
        labels=labels,
        tokens=tokens_of(inputs.get("input_ids")) if isinstance(inputs, Mapping) else None,
    )


def tokens_of(ids: Any) -> Tokens | None:
    """Tokens without their texts, for integers [batch, position]; None for anything else."""
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.is_floating_point():
        return None
    return Tokens(ids.detach())


def device_of(model: nn.Module) -> torch.device | None:
    """Where the model's first parameter or buffer is; None for a model without either.

    Where accelerate has offloaded it, where it runs.
    """
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    if first is not None and first.is_meta:
        hooks = (getattr(module, "_hf_hook", None) for module in model.modules())
        runs = (getattr(hook, "execution_device", None) for hook in hooks)
        device = next((d for d in runs if d is not None), None)
        return first.device if device is None else torch.device(device)
    return first.device if first is not None else None


def to_device(inputs: Any, device: torch.device | None) -> Any:
    """Tensors of a (nested) container moved to a device."""
    return inputs if device is None else _each(inputs, lambda values: moved(values, device))


def in_precision(inputs: Any, model: nn.Module) -> Any:
    """Floats of a (nested) container in the type of the model's weights, where that is one.

    numpy computes in float64, and a model of float32 refuses that.
    """
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if len(types) != 1 or not types <= _PLAIN:
        return inputs
    (own,) = types

    def cast(values: Tensor) -> Tensor:
        return values.to(own) if values.dtype in _PLAIN else values

    return _each(inputs, cast)


_PLAIN = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def _each(inputs: Any, change: Callable[[Tensor], Any]) -> Any:
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, Mapping):
        return {k: _each(v, change) for k, v in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(_each(v, change) for v in inputs)
    return inputs


def no_run(model: Any, inputs: Any, error: Exception) -> ModelError:
    """What is raised where a model does not run on a batch of data."""
    tensors: list[Tensor] = []
    _each(inputs, tensors.append)
    given = (
        " and ".join(f"{v.dtype} {tuple(v.shape)}" for v in tensors[:3]) or type(inputs).__name__
    )
    cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    bytes_ = any(values.dtype == torch.uint8 for values in tensors)
    hint = (
        "bytes are no floats: scale them as in training, for example data.float() / 255"
        if bytes_
        else "give what its forward takes"
    )
    name = type(model).__name__
    return ModelError(f"{name} does not run on the data, {given} ({cause}); {hint}")
