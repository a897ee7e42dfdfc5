"""The n-gram."""

from __future__ import annotations

import numpy as np
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
