"""Rows as they are held, put together to the tensors of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.data.incoming import LABELS, TOKENS
from polycode_plugins.errors import DataError

_MASK = "attention_mask"
_OF_TOKENS = (_MASK, "token_type_ids", "position_ids")  # columns as long as the tokens of a row
_CANNOT = "the rows of the data cannot be put together to a batch"


def collated(rows: Sequence[Any], first: int) -> tuple[Any, Tensor | None]:
    """The inputs of a batch [rows, ..], and labels [rows] where each row has a whole one.

    Rows of tokens of different lengths are padded at the right, with an attention mask.

    Args:
        rows: tensors, arrays or lists of numbers, (one of them, label), or mappings of them.
        first: the place of the first row in the data, for messages.

    Raises:
        DataError: for rows that differ in shape or in kind.
    """
    if isinstance(rows[0], Mapping):
        return _mappings([_same(row, Mapping, first + i) for i, row in enumerate(rows)], first)
    parts, labels = [], []
    for row in rows:
        pair = isinstance(row, list | tuple) and not all(isinstance(part, Number) for part in row)
        parts.append(row[0] if pair else row)
        labels.append(row[1] if pair and len(row) == 2 else None)
    tensors = [tensor_of_row(part, first + i) for i, part in enumerate(parts)]
    if _ragged(tensors):
        return padded({TOKENS: tensors}), _labels(labels)
    return _stacked(tensors, first), _labels(labels)


def tensor_of_row(value: Any, index: int) -> Tensor:
    """One row as a tensor.

    Raises:
        DataError: for what holds no numbers.
    """
    if isinstance(value, Tensor):
        return value.detach()
    try:
        return torch.as_tensor(np.asarray(value).copy())
    except (TypeError, ValueError) as error:
        raise DataError(
            f"row {index} of the data is a {type(value).__name__}, which holds no numbers; give "
            "tensors, or texts and pictures to a model that reads them"
        ) from error


def padded(columns: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    """Columns of tokens, each row filled up with 0 at the right, and what of them is real."""
    tokens = columns[TOKENS]
    longest = max(len(row) for row in tokens)
    found = {
        name: torch.stack([_filled(row, longest) for row in column])
        for name, column in columns.items()
    }
    if _MASK not in found:
        found[_MASK] = torch.stack([_filled(torch.ones_like(row), longest) for row in tokens])
    return found


def _filled(row: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(row.long(), (0, length - len(row)))


def _same(row: Any, kind: type, index: int) -> Any:
    if not isinstance(row, kind):
        raise DataError(
            f"{_CANNOT}: row {index} is a {type(row).__name__}, and others are mappings"
        )
    return row


def _mappings(rows: Sequence[Mapping[str, Any]], first: int) -> tuple[Any, Tensor | None]:
    names = [str(name) for name in rows[0]]
    label = next((name for name in LABELS if name in names), None)
    labels = None if label is None else _labels([row.get(label) for row in rows])
    wanted = [name for name in names if labels is None or name != label]
    if TOKENS in names:
        wanted = [name for name in wanted if name == TOKENS or name in _OF_TOKENS]
    columns: dict[str, list[Tensor]] = {}
    for name in wanted:
        missing = next((i for i, row in enumerate(rows) if name not in row), None)
        if missing is not None:
            raise DataError(f"{_CANNOT}: row {first + missing} has no {name!r}, and others have")
        values = [row[name] for row in rows]
        if any(isinstance(value, str) or value is None for value in values):
            raise DataError(
                f"{_CANNOT}: their column {name!r} holds no numbers; leave it out, or give texts "
                "to a model that reads them"
            )
        columns[name] = [tensor_of_row(value, first + i) for i, value in enumerate(values)]
    if TOKENS in columns and _ragged(columns[TOKENS]):
        return padded(columns), labels
    return {name: _stacked(column, first) for name, column in columns.items()}, labels


def _ragged(rows: Sequence[Tensor]) -> bool:
    """Whether these are tokens of rows of different lengths."""
    whole = all(row.dim() == 1 and not row.is_floating_point() for row in rows)
    return whole and len({len(row) for row in rows}) > 1


def _stacked(rows: Sequence[Tensor], first: int) -> Tensor:
    shapes = [tuple(row.shape) for row in rows]
    other = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
    if other is not None:
        raise DataError(
            f"{_CANNOT}: row {first} has shape {shapes[0]} and row {first + other} {shapes[other]}"
            "; bring them to one size"
        )
    return torch.stack(list(rows))


def _labels(values: Sequence[Any]) -> Tensor | None:
    """int64 [rows] where each value is a whole number."""
    found = []
    for value in values:
        if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
            value = value.item()
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            return None
        found.append(int(value))
    return torch.tensor(found)
