"""Planted truths: words, a model that reads them, records made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.explainers.base import Record, RecordSet, UnitRecords

WORDS, NEURONS = 60, 8


class Reader(nn.Module):
    """Neuron i is 5 on word i, and a little noise of its own on every other word."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Embedding(WORDS, NEURONS)
        generator = torch.Generator().manual_seed(0)
        table = 0.05 * torch.rand(WORDS, NEURONS, generator=generator)
        table[torch.arange(NEURONS), torch.arange(NEURONS)] = 5.0
        self.read.weight.data = table

    def forward(self, tokens: Tensor) -> Tensor:
        return self.read(tokens)


class Words:
    """A tokenizer that knows each word by its number."""

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(f" word{i}" for i in ids)


def planted_texts(n: int = 240, length: int = 16, seed: int = 0) -> Tensor:
    """int64 [n, length]: random words; those that a neuron fires on are rarer than the others."""
    weights = torch.ones(WORDS)
    weights[:NEURONS] = 0.5
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(weights, n * length, True, generator=generator).reshape(n, length)


def planted_comparison(**options: Any) -> pc.Comparison:
    """The neurons of `Reader`, explained by token look-up unless told otherwise."""
    settings = {"units": ("neuron", "projection"), "n_units": NEURONS, "tokenizer": Words()}
    return pc.compare(Reader(), planted_texts(), "read", **{**settings, **options})


@cache
def toy() -> pc.Comparison:
    """Eight neurons that fire on one word each, beside random projections of them."""
    return planted_comparison()


def record(tokens: Sequence[str], values: Sequence[float], document: int, row: int = 0) -> Record:
    return Record(tuple(tokens), np.asarray(values, dtype=np.float32), "unit", document, row)


def unit_of(
    explain: Sequence[Record], score: Sequence[Record], calibration: Sequence[Record] = ()
) -> UnitRecords:
    """A unit whose records are all top ones."""
    return UnitRecords(
        "unit",
        "site",
        "neuron",
        1,
        "openai",
        RecordSet(tuple(explain)),
        RecordSet(tuple(calibration)),
        RecordSet(tuple(score)),
    )
