"""Units that are judged alone, with probabilities, and several explanations of each."""

from __future__ import annotations

import numpy as np
import pytest
from planted import planted_comparison

import polycode_plugins as pc
from polycode_plugins.errors import DataError
from polycode_plugins.explainers import TokenLookupExplainer
from polycode_plugins.explainers.base import Verdict
from polycode_plugins.explainers.comparison.answer import answers
from polycode_plugins.explainers.comparison.statistics.noise import noise_of
from polycode_plugins.explainers.scoring.formulas import ranking_score
from polycode_plugins.explainers.scoring.judging import SimulatingJudge


class Doubting(TokenLookupExplainer):
    """Its judge says no to everything, with the right order of probabilities."""

    name = "doubting"

    def simulator(self):
        raise AssertionError("nothing is to be simulated")

    def judge(self):
        return _Doubting(TokenLookupExplainer().simulator())


class _Doubting(SimulatingJudge):
    def judge_many(self, tasks):
        return [
            [Verdict(False, "", v.cost, v.probability / 3) for v in verdicts]
            for verdicts in super().judge_many(tasks)
        ]


def test_a_judge_alone_needs_no_simulator_and_is_ranked_by_its_probabilities(tmp_path):
    made = planted_comparison(explainer=Doubting(), simulate=False, out=tmp_path)
    assert made.headline_scores == ["detection", "fuzzing"]
    assert made.run["simulator"]["simulator"] == "none"
    for unit in made:
        if unit.kind == "neuron":
            assert unit.score("correlation") is None
            assert unit.why("correlation").startswith("nothing was simulated")
            assert unit.score("detection") == 0.5
            assert unit.score("detection_auc") == 1.0
            assert unit.floor("constant", "detection") == 0.5
            assert unit.floor("oracle", "detection") == 1.0
            assert unit.floor("token-lookup", "detection") == 1.0
            assert unit.floor("shuffled", "detection_auc") < 0.9
    assert "balanced accuracy of detection" in answers(made)[0]
    assert pc.Comparison.load(tmp_path).contrast(score="detection") == made.contrast(
        score="detection"
    )


def test_neither_simulations_nor_judgements_are_refused():
    for options in (
        {"simulate": False, "judge": False},
        {"simulate": False, "calibrate": "linear"},
        {"explanations": 0},
    ):
        with pytest.raises(DataError):
            planted_comparison(**options)


def test_ranking_is_the_share_of_pairs_in_order():
    truth, p = [True, True, False, False], [0.9, 0.3, 0.3, 0.1]
    assert ranking_score(truth, p) == (1 + 1 + 0.5 + 1) / 4
    assert ranking_score(truth, [0.9, None, 0.3, None]) == 1
    assert ranking_score(truth, [0.9, 0.3, None, None]) is None


class Moody(TokenLookupExplainer):
    """Errs otherwise at every draw."""

    name = "moody"

    def explain_many(self, units, *, seed=0):
        made = []
        for i, found in enumerate(super().explain_many(units)):
            rng = np.random.default_rng([seed, i])
            data = {"levels": {t: v + 4 * rng.random() for t, v in found.data["levels"].items()}}
            made.append(type(found)(found.unit, self.name, f"draw {seed}", data))
        return made


def test_the_scores_of_several_explanations_are_means_and_their_spread_is_told(tmp_path):
    made = planted_comparison(explainer=Moody(), explanations=4, judge=False, out=tmp_path)
    for unit in made:
        draws = unit.evaluation.draws
        assert len(draws) == 4
        assert len({d.explanation.text for d in draws}) == 4
        held = [v for d in draws if (v := d.scores.values["correlation"]) is not None]
        assert unit.score("correlation") == (pytest.approx(np.mean(held)) if held else None)
    found = made.noise("neuron")
    assert found.within > 0.01
    assert any("from one explanation to the next" in line for line in answers(made))
    read = pc.Comparison.load(tmp_path)
    assert read.noise("neuron") == found
    assert made.to_dataframe().explanations.unique().tolist() == [4]
    # An explainer that draws nothing is asked twice and no more.
    same = planted_comparison(explanations=3, judge=False)
    assert same.noise("neuron") is None
    assert same.units[0].evaluation.draws == ()


def test_noise_and_the_spread_of_units_are_recovered():
    rng = np.random.default_rng(0)
    within, between = [], []
    for _ in range(200):
        sizes = rng.integers(2, 5, 30)
        true = rng.normal(0.5, 0.2, 30)
        found = noise_of([rng.normal(m, 0.1, k) for m, k in zip(true, sizes, strict=True)])
        within.append(found.within**2)
        between.append(found.between**2)
    assert np.mean(within) == pytest.approx(0.01, rel=0.05)
    assert np.mean(between) == pytest.approx(0.04, rel=0.05)
    assert noise_of([[0.1, 0.2], [0.4]]) is None
    assert noise_of([[0.3, 0.3], [0.5, 0.5]]).reliability == 1
