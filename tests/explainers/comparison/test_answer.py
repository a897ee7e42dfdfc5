"""The answer: by intervals, and said where there is none."""

from __future__ import annotations

import dataclasses

import pytest
from explanation_samples import sample_comparison
from unscored_units import unscored

from polycode_plugins.explainers.comparison.answer import answer, answers, headline
from polycode_plugins.explainers.comparison.contrasts import Contrast
from polycode_plugins.explainers.comparison.decisions import untold
from polycode_plugins.explainers.comparison.picture import picture


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


def test_too_few_scores_are_said_with_their_number_and_the_commonest_reason():
    sample = sample_comparison()
    assert len(sample) == 12
    reasons = {2: "silent", 3: "the time was out"}
    failed = unscored(sample, range(2, 12), lambda i: reasons.get(i, "the server\x1b[31m refused"))
    assert failed.headline_scores == ["correlation"]  # hardly a unit has one on random texts
    assert answers(failed) == [
        "Too few of the neurons and random projections have a score to compare them. "
        "10 of 12 have none; the commonest reason of 8: the server\\x1b[31m refused."
    ]
    one = unscored(sample, range(12), lambda i: "silent")
    assert answers(one)[0].endswith("12 of 12 have none; the reason: silent.")
    assert "have none" not in headline(sample, "neuron", "projection", "correlation")


def scored(comparison, values, shuffled=lambda unit, i: 0.0, lookup=lambda unit, i: 0.2):
    """The comparison with other scores on top and random texts: `values(unit, i)` for each unit."""
    made = []
    for i, unit in enumerate(comparison):
        evaluation = unit.evaluation
        held = {**evaluation.scores.values, "correlation": values(unit, i)}
        held["correlation_random"] = None
        floors = {
            name: dataclasses.replace(floor, values={**floor.values, "correlation": of(unit, i)})
            for name, of in (("shuffled", shuffled), ("token-lookup", lookup))
            for floor in [evaluation.floors[name]]
        }
        scores = dataclasses.replace(evaluation.scores, values=held)
        evaluation = dataclasses.replace(evaluation, scores=scores, floors=floors)
        made.append(dataclasses.replace(unit, evaluation=evaluation))
    return dataclasses.replace(comparison, units=tuple(made))


def by_kind(neuron, projection):
    return lambda unit, i: (neuron if unit.kind == "neuron" else projection) + 0.01 * (i % 3)


def test_the_floors_and_the_control_are_in_the_sentence_of_the_difference():
    sample = scored(sample_comparison(), by_kind(0.5, 0.3), lookup=by_kind(0.4, 0.25))
    control = scored(sample_comparison(), by_kind(0.2, 0.2))
    units = [dataclasses.replace(u, weights="random") for u in control]
    both = dataclasses.replace(sample, units=(*sample.units, *units))
    (said,) = answers(both)
    first = said.split(". ")[0]
    assert first.startswith("Over all sites the neurons are explained better than the random")
    assert "a look-up of tokens by 0.150" in said
    assert "explanations of other units by 0.000" in said
    assert "weights in random order by 0.000 (95% interval" in said
    assert first.index("explained better") < said.index("a look-up of tokens")
    assert "weights in random order" not in answers(sample)[0]
    without = dataclasses.replace(
        sample,
        units=tuple(
            dataclasses.replace(u, evaluation=dataclasses.replace(u.evaluation, floors={}))
            for u in sample
        ),
    )
    assert "so chance is not known" in answers(without)[0]


@pytest.mark.parametrize(
    ("shuffled", "why"),
    [
        (by_kind(0.0, 0.0), ""),
        (by_kind(0.06, 0.06), ""),
        (by_kind(0.0, 0.2), "explanations of other units score 0.210 with the random projections"),
        (by_kind(-0.2, 0.0), "explanations of other units score −0.190 with the neurons"),
        (by_kind(0.09, -0.06), "differ by 0.150 between the kinds, and their own by 0.200"),
        (lambda u, i: 0.15 if i % 2 else -0.2, ""),  # far in each, and near 0 on the whole
    ],
)
def test_nothing_is_told_where_explanations_of_other_units_are_far_from_chance(shuffled, why):
    sample = scored(sample_comparison(), by_kind(0.5, 0.3), shuffled)
    assert why in untold(sample, "neuron", "projection", "correlation")
    (said,) = answers(sample)
    assert ("is not told by the correlation" in said) == bool(why)
    assert ("explained better than the random" in said) == (not why)
    shown = [p for p in picture(sample) if getattr(p, "id", "") in ("differences", "contrasts")]
    assert len(shown) == (0 if why else 2)


def test_sites_that_disagree_are_not_pooled_without_saying_so():
    sites = sample_comparison().sites

    def turned(unit, i):
        sign = 1 if unit.site == sites[0] else -1
        return 0.4 + 0.1 * sign * (1 if unit.kind == "neuron" else -1) + 0.01 * (i % 3)

    (said,) = answers(scored(sample_comparison(), turned))
    assert said.startswith("The sites disagree on neurons and random projections (p = ")
    assert f"from −0.200 at {sites[1]} to 0.200 at {sites[0]}" in said
    assert "explained better at 1, worse at 1, neither can be told at 0" in said
    assert "that of no site; beside it" in said


def test_units_without_kurtosis_are_named_and_the_others_counted():
    whole = contrast(0.2, (0.1, 0.3), 0.1, (0.05, 0.2))
    named = tuple(f"s: neuron {i}" for i in range(5))
    said = answer(dataclasses.replace(whole, adjusted_n=(6, 9), uncovered=named))
    assert "(of 6 of 9 neurons and 9 of 9 random projections)" in said
    assert said.endswith("without kurtosis: s: neuron 0, s: neuron 1, s: neuron 2 and 2 more.")
    every = answer(dataclasses.replace(whole, adjusted_n=(9, 9)))
    assert "of 9 of 9" not in every
    assert "without kurtosis" not in every


def test_a_notebook_shows_the_answer_beside_its_picture():
    shown = sample_comparison()._repr_html_()
    assert "data:image/svg" in shown
    assert answers(sample_comparison())[0][:40] in shown
