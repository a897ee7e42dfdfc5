"""The pass: the best texts of every unit, the same for any batch size, padding and documents."""

from __future__ import annotations

import numpy as np
import pytest
from one_pass_records import collect
from planted import Reader, planted_texts

import polycode_plugins as pc
from polycode_plugins.adapters.base import DataOptions
from polycode_plugins.errors import DataError
from polycode_plugins.explainers.records.one_pass import run_pass
from polycode_plugins.explainers.records.protocols import OPENAI
from polycode_plugins.explainers.records.unit_records import records_of
from polycode_plugins.explainers.units.neurons import neurons


def test_records_do_not_depend_on_the_batch_size():
    found = []
    for batch_size in (5, 240):
        (collector,), texts, strings = collect(batch_size)
        found.append([r for r, _ in records_of(collector, texts, strings, OPENAI)])
    for a, b in zip(*found, strict=True):
        pairs = ((a.score.all(), b.score.all()), (a.explain.all(), b.explain.all()))
        for left, right in (p for sets in pairs for p in zip(*sets, strict=True)):
            assert (left.tokens, left.row) == (right.tokens, right.row)
            assert np.array_equal(left.activations, right.activations)


def test_padding_enters_nothing_and_moves_no_token():
    texts = ["alpha beta " * 3] + [f"def f{i}(x): return x + {i}" for i in range(60)]
    (collector,), kept, strings = run_pass(
        pc.load(),
        texts,
        "blocks.2.hook_resid_post",
        lambda site, width: [neurons(width, 4)],
        options=DataOptions(context=48),
    )
    alone = pc.load()
    for records, shape in records_of(collector, kept, strings, OPENAI):
        neuron = int(records.unit.split(" ")[1])
        assert np.isfinite(shape.sd)
        for record in records.explain.all()[:2] + records.score.all()[:2]:
            text = texts[record.document]
            assert "".join(record.tokens) == text
            options = DataOptions(context=len(record.tokens) + 1)  # no padding at all
            (batch,) = alone.stream([text], "blocks.2.hook_resid_post", options=options)
            expected = batch["blocks.2.hook_resid_post"].values[0, 1:, neuron].numpy()
            assert records.sign * expected == pytest.approx(record.activations, abs=2e-4)


def test_too_few_documents_are_refused():
    adapter = pc.load(Reader())
    (collector,), texts, strings = run_pass(
        adapter, planted_texts(9), "read", lambda s, w: [neurons(w)], options=DataOptions()
    )
    with pytest.raises(DataError, match="9 documents, and the protocol 'openai' needs 20 top"):
        list(records_of(collector, texts, strings, OPENAI))
