"""What other pipelines get wrong, each planted here."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from planted import (
    NEURONS,
    Reader,
    Words,
    planted_texts,
    toy,
    unit_of,
)
from planted_scores import made

import polycode_plugins as pc
from polycode_plugins.errors import DataError
from polycode_plugins.explainers.records.protocols import (
    MARSHALL_KIRCHNER,
    OPENAI,
    check_disjoint,
    split,
)

# -- splits ----------------------------------------------------------------------------------------


def test_openai_splits_are_interleaved_as_published():
    unit = split("u", "s", "neuron", 1, OPENAI, top=made(22), random=made(16, 100, (0.0, 0.5, 0.0)))
    assert [r.document for r in unit.explain.top] == [0, 4, 8, 12, 16]
    assert [r.document for r in unit.calibration.top] == [1, 5, 9, 13, 17]
    assert [r.document for r in unit.score.top] == [2, 6, 10, 14, 18]
    assert unit.explain.random == ()
    assert [r.document for r in unit.calibration.random] == [100, 103, 106, 109, 112]
    assert [r.document for r in unit.score.random] == [101, 104, 107, 110, 113]


def test_the_papers_splits_are_even_and_odd_ranks_of_the_ten_highest():
    unit = split("u", "s", "neuron", 1, MARSHALL_KIRCHNER, top=made(12))
    assert [r.document for r in unit.explain.all()] == [0, 2, 4, 6, 8]
    assert [r.document for r in unit.score.all()] == [1, 3, 5, 7, 9]
    assert unit.calibration.all() == ()


def test_quantile_records_are_split_as_well():
    protocol = dataclasses.replace(OPENAI, n_quantile=9)
    unit = split(
        "u", "s", "neuron", 1, protocol, top=made(20), random=made(15, 100), quantile=made(9, 200)
    )
    found = [unit.explain.quantile, unit.calibration.quantile, unit.score.quantile]
    assert [[r.document for r in part] for part in found] == [
        [200, 203, 206],
        [201, 204, 207],
        [202, 205, 208],
    ]


def test_a_document_that_is_explained_and_scored_is_refused():
    with pytest.raises(DataError, match="document 3 is among the explain and the score"):
        check_disjoint(unit_of(made(1, 3), made(1, 3)))
    for unit in toy():
        check_disjoint(unit.evaluation.records)


def test_a_text_that_occurs_in_two_documents_is_not_scored_where_it_was_shown():
    twice = [dataclasses.replace(r, document=50 + r.document) for r in made(4)]
    with pytest.raises(DataError, match="the text of document 50 is among the explain and the sco"):
        check_disjoint(unit_of(made(1), twice[:1]))
    top = [r for pair in zip(made(4), twice, strict=True) for r in pair] + made(14, 10)
    random = [*twice, *made(12, 100)]
    unit = split("u", "s", "neuron", 1, OPENAI, top=top[:20], random=random[:15])
    assert [r.document for r in unit.explain.top] == [0, 10, 14, 18]
    assert [r.document for r in unit.score.top] == [2, 12, 16, 20]
    assert [r.document for r in unit.score.random] == [101, 104, 107, 110]
    spare = split("u", "s", "neuron", 1, OPENAI, top=top, random=[*random, *made(3, 200)])
    assert len(spare.score.random) == 5  # others stand in where there are some
    same = [dataclasses.replace(made(1)[0], document=i) for i in range(10)]
    with pytest.raises(DataError, match="are one text over and over"):
        split("u", "s", "neuron", 1, MARSHALL_KIRCHNER, top=same)


def test_no_unit_is_scored_on_a_text_that_it_was_explained_on():
    texts = planted_texts()
    comparison = pc.compare(
        Reader(), torch.cat([texts, texts]), "read", n_units=NEURONS, tokenizer=Words()
    )  # each text is two documents
    for unit in comparison:
        records = unit.evaluation.records
        shown = {r.tokens for r in records.explain.all()}
        assert not any(r.tokens in shown for r in records.score.all() + records.calibration.all())
        assert unit.score("correlation") is not None


def test_one_document_is_too_few():
    text = "one long text. " * 400
    with pytest.raises(DataError, match="the texts hold 1 documents"):
        pc.compare(texts=[text], sites="blocks.1.mlp.hook_post", n_units=2, judge=False)


# -- planted units ---------------------------------------------------------------------------------


# -- failures --------------------------------------------------------------------------------------


# -- controls --------------------------------------------------------------------------------------


# -- OpenAI's files --------------------------------------------------------------------------------
