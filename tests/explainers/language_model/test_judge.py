"""The judge tells texts apart, or says why not."""

from __future__ import annotations

import pytest
from openai_rules import fires
from planted_units import UNITS

from polycode_plugins.explainers.base import JudgeTask


@pytest.mark.parametrize("task", ["detection", "fuzzing"])
def test_the_judge_tells_texts_apart(explainer, task):
    one = explainer("text")
    explanations = one.explain_many(UNITS)
    judge = one.judge()
    asked, truth = [], []
    for unit, explanation in zip(UNITS, explanations, strict=True):
        texts = [r.tokens for r in unit.score.all()]
        hits = [[i for i, t in enumerate(text) if fires(unit.unit, t)] for text in texts]
        if task == "fuzzing":  # every other text is marked at a silent token
            hits = [h if k % 2 == 0 else [] for k, h in enumerate(hits)]
        marked = tuple(tuple(h or [0]) for h in hits)
        truth.append([bool(h) for h in hits])
        asked.append(
            JudgeTask(explanation, task, tuple(texts), marked if task == "fuzzing" else ())
        )
    verdicts = judge.judge_many(asked)
    assert [[v.answer for v in found] for found in verdicts] == truth
    assert True in truth[0]
    assert False in truth[0]
    assert sum(v.cost.requests for found in verdicts for v in found) == 2 * len(UNITS)


@pytest.mark.parametrize("fault", ["prose", "other", "counts"])
def test_a_judge_that_does_not_answer_gives_no_verdict(explainer, server, fault):
    one = explainer("text")
    explanation = one.explain(UNITS[0])
    judge = one.judge()
    one.session.backend.identity = server.url(fault)
    texts = tuple(r.tokens for r in UNITS[0].score.all())
    verdicts = judge.judge_many([JudgeTask(explanation, "detection", texts)])[0]
    assert {v.answer for v in verdicts} == {None}
    assert len(verdicts) == len(texts)
    assert all(v.reason for v in verdicts)


def test_a_server_with_log_probabilities_gives_the_probability_of_yes(explainer):
    one = explainer("generated")
    judge, unit = one.judge(), UNITS[0]
    texts = tuple(r.tokens for r in unit.score.all())
    (verdicts,) = judge.judge_many([JudgeTask(one.explain(unit), "detection", texts)])
    assert {v.answer for v in verdicts} == {True, False}
    for verdict in verdicts:
        assert verdict.probability is not None
        assert (verdict.probability > 0.5) == verdict.answer
    (silent,) = (
        explainer("text")
        .judge()
        .judge_many([JudgeTask(explainer("text").explain(unit), "detection", texts)])
    )
    assert {v.probability for v in silent} == {None}
