"""The rows of a batch as requests of an engine."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from polycode_plugins.adapters.base import Batch
from polycode_plugins.adapters.vllm.texts import Row
from polycode_plugins.errors import DataError


def _tokens_and_places(batch: Batch) -> tuple[Tensor, list[list[int]]]:
    """The tokens [batch, position], and the positions of each row that are no padding."""
    inputs = batch.inputs
    tokens = inputs["input_ids"] if isinstance(inputs, Mapping) else inputs
    attention = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    real = torch.ones_like(tokens, dtype=torch.bool) if attention is None else attention.bool()
    return tokens, [row.nonzero().flatten().tolist() for row in real]


def prompts(batch: Batch) -> list[list[int]]:
    """The tokens of each row, without padding."""
    tokens, real = _tokens_and_places(batch)
    return [row[there].tolist() for row, there in zip(tokens, real, strict=True)]


def rows_of(batch: Batch) -> list[Row]:
    """What is known of each row of a batch: its number, its document, what does not count."""
    _, real = _tokens_and_places(batch)
    rows = batch.rows.tolist()
    documents = rows if batch.documents is None else batch.documents.tolist()
    found = []
    for index, there in enumerate(real):
        if not there:
            raise DataError(f"row {rows[index]} has no token that is no padding; leave it out")
        out: list[int] = []
        if batch.mask is not None:
            mask = batch.mask[index]
            mask = mask.expand(int(max(there)) + 1) if mask.dim() == 0 else mask
            out = [at for at, place in enumerate(there) if not bool(mask[place])]
        found.append(Row(rows[index], documents[index], tuple(out)))
    return found
