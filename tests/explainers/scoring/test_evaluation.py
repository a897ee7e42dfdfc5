"""Failures are counted, never scored."""

from __future__ import annotations

import numpy as np
import pytest
from planted import (
    NEURONS,
    planted_comparison,
    record,
    toy,
    unit_of,
)
from planted_scores import Half, made

from polycode_plugins.errors import PluginError
from polycode_plugins.explainers import evaluate
from polycode_plugins.explainers.base import (
    Simulation,
    Simulator,
)
from polycode_plugins.explainers.lookup import TokenLookupExplainer
from polycode_plugins.explainers.ngram import NgramExplainer


def test_failures_are_counted_and_never_scored():
    comparison = planted_comparison(explainer=Half(3), units="neuron")
    assert comparison.failures == {"it refused": NEURONS // 2}
    for i, unit in enumerate(comparison):
        scores = unit.evaluation.scores
        if i % 2:
            assert scores.n_failed == 3
            assert scores.values["correlation"] > 0.9
        else:
            assert set(scores.values.values()) == {None}
            assert scores.reasons["correlation"] == "no explanation: it refused"
            assert unit.evaluation.simulations == ()
    frame = comparison.to_dataframe()
    assert frame.loc[frame.state == "failed", "correlation"].isna().all()
    (contrast,) = comparison.contrast("neuron", "neuron")[-1:]
    assert contrast.n == (NEURONS // 2, NEURONS // 2)
    assert contrast.undefined == (NEURONS // 2, NEURONS // 2)


def test_a_unit_whose_simulations_mostly_fail_has_no_score():
    comparison = planted_comparison(explainer=Half(6), units="neuron")
    scores = comparison.units[1].evaluation.scores
    assert scores.values["correlation"] is None
    assert scores.reasons["correlation"] == "the simulation failed on most texts: unparsable"


def test_a_silent_unit_fails_rather_than_scoring():
    silent = unit_of(
        [record(["a", "b"], [-1.0, 0.0], i) for i in range(2)], [record(["a"], [1.0], 9)]
    )
    for explainer in (TokenLookupExplainer(), NgramExplainer()):
        (found,) = evaluate([silent], explainer)
        assert found.explanation.state == "failed"
        assert set(found.scores.values.values()) == {None}
        assert found.floors["oracle"].values["correlation"] is None


def test_an_explainer_that_answers_too_little_is_refused():
    class Short(TokenLookupExplainer):
        def explain_many(self, units, *, seed=0):
            return super().explain_many(units, seed=seed)[:-1]

    class Shifted(Simulator):
        name = "shifted"

        def simulate_many(self, tasks):
            return [[Simulation(np.zeros(len(t) + 1)) for t in task.texts] for task in tasks]

    unit = unit_of(made(3), made(3, 50))
    with pytest.raises(PluginError, match="0 explanations of 1 units"):
        evaluate([unit], Short())
    with pytest.raises(PluginError, match="one activation for each token"):
        evaluate([unit], TokenLookupExplainer(), simulator=Shifted())


def test_a_constant_answer_scores_nothing():
    for unit in toy():
        constant = unit.evaluation.floors["constant"]
        assert constant.values["correlation"] is None
        assert constant.values["r_squared"] < 0
        chance = np.mean(
            [r >= 5 for s in unit.evaluation.records.score.all()
             for r in unit.evaluation.records.levels(s)]
        )  # fmt: skip
        assert constant.values["auprc"] == pytest.approx(chance, abs=0.02)


def test_raw_and_one_sided_scores_are_both_given():
    score = [record(["a", "b", "c", "d"], [5.0, -5.0, 0.0, -1.0], 9)]
    unit = unit_of([record(["a", "b", "c", "d"], [5.0, -5.0, 0.0, -1.0], 1)], score)
    (found,) = evaluate([unit], TokenLookupExplainer(), floors=("oracle",))
    assert found.scores.values["correlation_one_sided"] == pytest.approx(1)
    raw = np.corrcoef([5, -5, 0, -1], [10, 0, 0, 0])[0, 1]
    assert found.scores.values["correlation"] == pytest.approx(raw)
    assert found.floors["oracle"].values["correlation"] == pytest.approx(raw)
