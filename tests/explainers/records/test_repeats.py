"""Texts that occur again."""

from __future__ import annotations

import pytest
import torch
from planted import (
    NEURONS,
    Reader,
    Words,
    planted_texts,
)

import polycode_plugins as pc
from polycode_plugins.explainers.records import repeats as repeats_module
from polycode_plugins.explainers.records.repeats import Repeats


@pytest.mark.parametrize("protocol", ["openai", "marshall-kirchner"])
def test_a_text_that_occurs_again_and_again_costs_no_unit_its_records(protocol):
    texts = planted_texts()
    repeated = torch.cat([texts, texts[::2], texts[::3], texts[:5].repeat(8, 1)])
    options = {"n_units": NEURONS, "tokenizer": Words(), "protocol": protocol, "judge": False}
    found, alone = (pc.compare(Reader(), t, "read", **options) for t in (repeated, texts))
    for unit, other in zip(found, alone, strict=True):
        scored, expected = unit.evaluation.records.score, other.evaluation.records.score
        assert len(scored.all()) == (10 if protocol == "openai" else 5)
        assert [r.row for r in scored.all()] == [r.row for r in expected.all()]
        assert unit.score("correlation") == other.score("correlation")


@pytest.mark.parametrize("recent", [2, 10_000])
def test_repeats_are_known_whatever_the_batches_are(recent, monkeypatch):
    monkeypatch.setattr(repeats_module, "_RECENT", recent)
    tokens = torch.randint(0, 3, (400, 4), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(4)[None] < torch.randint(1, 5, (400, 1))
    first: dict[tuple[int, ...], int] = {}
    texts = [tuple(t[m].tolist()) for t, m in zip(tokens, mask, strict=True)]
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    expected = sorted(set(range(400)) - set(first.values()))
    for size in (1, 7, 400):
        repeats, found = Repeats(), []
        for i in range(0, 400, size):
            part = slice(i, i + size)
            found += repeats.among(torch.arange(400)[part], tokens[part], mask[part]).tolist()
        assert found == expected
