"""A judge is given as many true as false cases."""

from __future__ import annotations

from planted import (
    toy,
)

from polycode_plugins.explainers import evaluate
from polycode_plugins.explainers.base import (
    Verdict,
)
from polycode_plugins.explainers.lookup import TokenLookupExplainer
from polycode_plugins.explainers.scoring.judging import SimulatingJudge, cases_of


def test_detection_and_fuzzing_give_a_judge_of_one_answer_chance():
    unit = next(u for u in toy() if u.kind == "neuron").evaluation
    cases = cases_of(unit.records, unit.explanation, 0)
    assert sum(cases.truth[1]) * 2 == len(cases.truth[1])
    for indices, tokens in zip(cases.tasks[1].marked, cases.tasks[1].texts, strict=True):
        assert set(indices) <= set(range(len(tokens)))

    class Yes(SimulatingJudge):
        def judge_many(self, tasks):
            return [[Verdict(True) for _ in task.texts] for task in tasks]

    class Judged(TokenLookupExplainer):
        def judge(self):
            return Yes(self.simulator())

    (found,) = evaluate([unit.records], Judged(), floors=())
    assert found.scores.values["detection"] == 0.5
    assert found.scores.values["fuzzing"] == 0.5
