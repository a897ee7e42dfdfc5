"""Floors: what an explanation has to beat."""

from __future__ import annotations

import pytest
from planted import (
    NEURONS,
    planted_comparison,
    unit_of,
)
from planted_scores import made

from polycode_plugins.explainers.base import (
    direction_of,
)
from polycode_plugins.explainers.lookup import TokenLookupExplainer
from polycode_plugins.explainers.scoring.floors import floors_of, others


@pytest.mark.parametrize("n", [2, 3, 17])
def test_a_shuffled_explanation_is_seeded_and_never_the_units_own(n):
    for seed in range(50):
        found = others(n, range(n), seed)
        assert all(j is not None and j != i for i, j in enumerate(found))
        assert sorted(found) == list(range(n))
        assert found == others(n, range(n), seed)
    if n > 3:
        assert others(n, range(n), 0) != others(n, range(n), 1)
    assert others(3, [1], 0) == [1, None, 1]
    assert others(2, [], 0) == [None, None]


def test_the_other_sign_of_a_unit_is_not_another_unit():
    of = [f"neuron {i // 2}" for i in range(12)]
    for seed in range(50):
        found = others(12, range(12), seed, of)
        assert sorted(found) == list(range(12))
        assert all(of[i] != of[j] for i, j in enumerate(found))
    assert others(3, [0, 1], 0, ["a", "a", "b"])[:2] == [None, None]
    both = planted_comparison(units="neuron", signs="both", explainer="ngram", floors=("shuffled",))
    assert [direction_of(u.evaluation.records) for u in both] == [
        f"neuron {i // 2}" for i in range(2 * NEURONS)
    ]


def test_a_single_unit_has_no_shuffled_floor_and_says_so():
    unit = unit_of(made(3), made(3, 50))
    explanations = TokenLookupExplainer().explain_many([unit])
    (floors,) = floors_of([unit], explanations, TokenLookupExplainer().simulator(), ("shuffled",))
    assert floors["shuffled"].values["correlation"] is None
    assert floors["shuffled"].reasons["correlation"] == "there is no other unit's"
