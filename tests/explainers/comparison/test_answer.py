"""The answer: by intervals, and said where there is none."""

from __future__ import annotations

import dataclasses

import pytest
from explanation_samples import sample_comparison
from unscored_units import unscored

from polycode_plugins.explainers.comparison.answer import answer, answers
from polycode_plugins.explainers.comparison.contrasts import Contrast


def contrast(difference, interval, adjusted=None, adjusted_interval=None):
    made = {"adjusted": adjusted, "adjusted_interval": adjusted_interval}
    n, means = (9, 9), (0.5, 0.5 - difference)
    return Contrast(
        "", "neuron", "projection", "correlation", n, (0, 0), means, difference, interval, 0.01,
        **made,
    )  # fmt: skip


def test_the_answer_goes_by_the_interval_and_names_the_better_kind():
    better = answer(contrast(0.2, (0.1, 0.3)))
    assert "the neurons are explained better than the random projections" in better
    worse = answer(contrast(-0.2, (-0.3, -0.1)))
    assert "the random projections are explained better than the neurons" in worse
    assert "0.200 (95% interval 0.100 to 0.300)" in worse
    assert "No difference that can be told from chance" in answer(contrast(0.2, (-0.1, 0.3)))
    assert "which may be none" in answer(contrast(0.2, (0.1, 0.3), 0.01, (-0.1, 0.1)))
    assert "is not all of it" in answer(contrast(0.2, (0.1, 0.3), 0.1, (0.05, 0.2)))


def test_kinds_that_share_too_little_are_said_to():
    whole = contrast(0.2, (0.1, 0.3))
    for little in (0.01, 0.2, 0.24):
        assert answer(dataclasses.replace(whole, overlap=little)).endswith(
            "They share too little kurtosis and sparsity to be compared at equal ones."
        )
    for enough in (None, 0.25, 0.3):
        assert "share too little" not in answer(dataclasses.replace(whole, overlap=enough))


@pytest.mark.slow
def test_too_few_scores_are_said_with_their_number_and_the_commonest_reason():
    sample = sample_comparison()
    assert len(sample) == 12
    reasons = {2: "silent", 3: "the time was out"}
    failed = unscored(sample, range(2, 12), lambda i: reasons.get(i, "the server\x1b[31m refused"))
    assert answers(failed) == [
        "Too few of the neurons and random projections have a score to compare them. "
        "10 of 12 have none; the commonest reason of 8: the server\\x1b[31m refused."
    ]
    one = unscored(sample, range(12), lambda i: "silent")
    assert answers(one)[0].endswith("12 of 12 have none; the reason: silent.")
    assert "have none" not in answers(sample)[0]


def test_the_control_is_part_of_the_answer():
    sample = sample_comparison()
    half = dict.fromkeys(sample.kinds, 0.0)
    control = []
    for unit in sample:
        scores = unit.evaluation.scores
        half[unit.kind] += 0.01
        changed = dataclasses.replace(
            scores, values={**scores.values, "correlation": half[unit.kind]}
        )
        made = dataclasses.replace(unit.evaluation, scores=changed)
        control.append(dataclasses.replace(unit, weights="random", evaluation=made))
    both = dataclasses.replace(sample, units=(*sample.units, *control))
    assert "In the control" not in answers(sample)[0]
    assert "in random order, the difference is 0.000 (95% interval" in answers(both)[0]
