"""How many rows will come, where that can be known before they are read."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any

import torch
from torch.utils.data import DataLoader

from polycode_plugins.data_options import DataOptions


def total_rows(data: Any, options: DataOptions) -> tuple[int | None, bool]:
    """(rows that this shard of the data has, whether there may be fewer); None where not known.

    A limit is the most that may come; tensors, arrays and loaders of a known length say how many.
    """
    known = _length(data)
    limit = options.limit
    index, count = options.shard
    if known is None:
        return (None, False) if limit is None else (len(range(index, limit, count)), True)
    whole = known if limit is None else min(known, limit)
    return len(range(index, whole, count)), False


def _length(data: Any) -> int | None:
    if isinstance(data, DataLoader):
        data = data.dataset
        return len(data) if isinstance(data, Sized) else None
    if isinstance(data, torch.Tensor) or hasattr(data, "__array__"):
        shape: Sequence[int] = getattr(data, "shape", ())
        return int(shape[0]) if len(shape) > 0 else None
    return None
