"""Batches of tensors, as any model takes them: from a tensor, an array or a DataLoader."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polycode_plugins.activations import Tokens
from polycode_plugins.adapters.base import Batch
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import DataError


def tensor_batches(data: Any, options: DataOptions) -> Iterator[Batch]:
    """Batches of tensors or of an iterable of batches, see `ModuleAdapter.batches`."""
    rank, world = options.shard
    limit = options.limit
    if isinstance(data, np.ndarray):
        data = torch.from_numpy(data)
    if isinstance(data, Tensor):
        if data.dim() < 2 or data.shape[0] == 0:
            raise DataError(
                f"a tensor of inputs needs shape [rows, ...] with at least one row, and this one "
                f"is {tuple(data.shape)}"
            )
        rows = torch.arange(data.shape[0])[:limit][rank::world]
        if options.content is not None:
            options.content.add_value(data[:limit])
        for start in range(0, rows.shape[0], options.batch_size):
            part = rows[start : start + options.batch_size]
            yield Batch(data[part], rows=part)
        return
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
        raise DataError(
            f"this adapter reads tensors or an iterable of batches such as a DataLoader, not "
            f"{type(data).__name__}"
        )
    start = 0
    for index, item in enumerate(data):
        batch = as_batch(item, start)
        if limit is not None and start + len(batch) > limit:
            batch = _head(batch, limit - start)
        start += len(batch)
        if options.content is not None:
            parts = (batch.inputs, batch.mask, batch.documents, batch.labels)
            options.content.add_value(parts)
        if index % world == rank:
            yield batch
        if limit is not None and start >= limit:
            return
    if start == 0:
        raise DataError("the data holds no batch; check the path or the DataLoader")


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
    if isinstance(inputs, str):
        raise DataError(
            "the data yields strings, and here a batch must hold a tensor [batch, ...]; tokenise "
            "the texts, or give them in a list to a model of TransformerLens or nnsight, or by name"
        )
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
    """Where the model's first parameter or buffer is; None for a model without either."""
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return first.device if first is not None else None


def to_device(inputs: Any, device: torch.device | None) -> Any:
    """Tensors of a (nested) container moved to a device."""
    if device is None:
        return inputs
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    if isinstance(inputs, Mapping):
        return {k: to_device(v, device) for k, v in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(to_device(v, device) for v in inputs)
    return inputs
