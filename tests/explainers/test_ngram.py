"""The n-gram."""

from __future__ import annotations

import numpy as np
import pytest
from planted import (
    record,
    unit_of,
)

from polycode_plugins.explainers import evaluate
from polycode_plugins.explainers.lookup import TokenLookupExplainer
from polycode_plugins.explainers.ngram import NgramExplainer


def test_an_ngram_finds_what_a_single_token_cannot():
    rng = np.random.default_rng(0)

    def text(i):
        tokens = [str(t) for t in rng.choice(["of", "the", "a"], 40)]
        return record(
            tokens, [9.0 * (i > 0 and tokens[i - 1 : i + 1] == ["of", "the"]) for i in range(40)], i
        )

    unit = unit_of([text(i) for i in range(6)], [text(i) for i in range(6, 12)])
    scores = {
        e.name: evaluate([unit], e, floors=())[0].scores.values["correlation"]
        for e in (TokenLookupExplainer(), NgramExplainer(2), NgramExplainer(1))
    }
    assert scores["token-lookup"] < 0.8
    (ngram,) = evaluate([unit], NgramExplainer(2), floors=())
    assert ngram.scores.values["correlation"] > 0.99
    assert "'ofthe' 9" in ngram.explanation.text or "'ofthe' 10" in ngram.explanation.text


def test_what_is_seen_once_counts_two_to_one_beside_what_its_end_says():
    """By hand: b alone is 10, 0 and 2 and so 4; "a b" is 10 once, and (10 + 4 / 2) / 1.5 = 8."""
    texts = [
        record(["a", "b"], [0.0, 10.0], 0),
        record(["c", "b"], [0.0, 0.0], 1),
        record(["d", "b"], [0.0, 2.0], 2),
    ]
    explanation = NgramExplainer(2).explain(unit_of(texts, texts))
    levels = {tuple(pattern): level for pattern, level in explanation.data["patterns"]}
    assert levels["b",] == pytest.approx(4)
    assert levels["a", "b"] == pytest.approx(8)
    assert levels["c", "b"] == pytest.approx(4 / 3)
    assert levels["d", "b"] == pytest.approx(8 / 3)
    # Seen twice alike, it counts four to one.
    twice = [*texts, record(["a", "b"], [0.0, 10.0], 3)]
    levels = {
        tuple(p): v for p, v in NgramExplainer(2).explain(unit_of(twice, twice)).data["patterns"]
    }
    assert levels["a", "b"] == pytest.approx((20 + 5.5 / 2) / 2.5)


def test_a_longer_pattern_is_kept_where_it_moves_the_level_by_one():
    def levels(other):
        texts = [record(["a", "b"], [0.0, 10.0], 0), record(["c", "b"], [0.0, other], 1)]
        found = NgramExplainer(2).explain(unit_of(texts, texts)).data["patterns"]
        return {tuple(pattern) for pattern, _ in found}

    # Two levels off the mean are (10 + 8 / 2) / 1.5 - 8 = 1.33 after drawing, one is 0.67.
    assert ("a", "b") in levels(6.0)
    assert ("a", "b") not in levels(8.0)
