"""The page of a comparison: complete, in order, and harmless whatever tokens hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from explanation_samples import ATTACKS, hostile_comparison, sample_comparison
from report_reading import faults, read

from polycode_plugins.explainers import Explanation
from polycode_plugins.explainers.comparison import adjusting
from polycode_plugins.explainers.comparison.answer import answer, answers
from polycode_plugins.explainers.comparison.contrasts import Contrast
from polycode_plugins.explainers.comparison.heat_texts import runs, visible
from polycode_plugins.explainers.comparison.picture import picture
from polycode_plugins.explainers.scoring.scores import Scores
from polycode_plugins.pages.charts import Chart
from polycode_plugins.pages.tables import Table


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    return Path(sample_comparison().report(path)).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    return Path(hostile_comparison().report(path)).read_text(encoding="utf-8")


def test_every_unit_is_there_with_its_scores_floors_and_texts(page):
    comparison = sample_comparison()
    reading = read(page)
    rows = [e for e in reading.all("tr") if "tbody" in e.inside]
    units = [r for r in rows if "true" in r.text and "simulated" in r.text]
    assert len(units) == len(comparison)
    for row, unit in zip(units, comparison, strict=True):
        assert unit.name in row.text
        assert unit.evaluation.explanation.text in row.text
        assert f"{unit.score('correlation'):.3f}".replace("-", "−") in row.text
        oracle = unit.evaluation.floors["oracle"].values["correlation"]
        assert f"{oracle:.3f}" in row.text
    assert {"shuffled", "empty", "constant", "token-lookup", "oracle"} <= {
        e.text for e in reading.all("button")
    }
    assert "seed 0, distribution gaussian, norm 1.0" in reading.one("section", id="compared").text
    beside = reading.one("table", id="beside").text
    assert beside.count("undefined") >= 4  # the correlation of a constant, for each kind and site
    assert set(reading.figures()) == {"scores"}
    assert faults(page) == []


def test_failures_are_said_before_anything_else():
    comparison = sample_comparison()
    first, *rest = comparison.units
    failed = dataclasses.replace(
        first.evaluation,
        explanation=type(first.evaluation.explanation).failed("u", "e", "the budget is spent"),
    )
    from polycode_plugins.pages.pages import Warnings
    from polycode_plugins.report.comparison_page import page_of

    changed = dataclasses.replace(
        comparison, units=(dataclasses.replace(first, evaluation=failed), *rest)
    )
    (warnings,) = [p for p in page_of(changed).sections[0].parts if isinstance(p, Warnings)]
    assert warnings.sentences[0] == (
        f"1 of {len(comparison)} units have no explanation and no score: the budget is spent."
    )


def test_hostile_tokens_and_explanations_are_text(hostile):
    assert faults(hostile) == []
    reading = read(hostile)
    for attack in ATTACKS:
        assert any(visible(attack) in e.text for e in reading.all("p") + reading.all("summary"))
    assert not any(c in hostile for c in "\u202e\u2066\x00\x1b\u200b")


def test_every_character_that_hides_is_shown():
    assert visible("a\u202eb\x1b[31m\n\ud800\u200b\u2028") == (
        "a\\u202eb\\x1b[31m↵\\ud800\\u200b\\u2028"
    )
    assert visible(" naïve 漢字 🙂") == " naïve 漢字 🙂"


def test_runs_join_what_is_not_coloured_and_keep_every_token():
    made = runs(["a", " b", " c", " d"], np.array([0.4, -0.9, 3.7, -20.0]))
    assert [(r.text, r.level) for r in made] == [("a b", 0), (" c", 3), (" d", -10)]


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
    apart = dataclasses.replace(contrast(0.2, (0.1, 0.3)), overlap=0.01)
    assert answer(apart).endswith(
        "They share too little kurtosis and sparsity to be compared at equal ones."
    )
    for enough in (None, adjusting.COMMON):
        assert "share too little" not in answer(dataclasses.replace(apart, overlap=enough))


def unscored(comparison, which, reason):
    """The comparison in which the units at these places failed."""
    units = list(comparison.units)
    for i in which:
        made = units[i].evaluation
        failed = dataclasses.replace(
            made,
            explanation=Explanation.failed("u", "e", reason(i)),
            scores=Scores.undefined("no explanation", made.scores.n_records),
        )
        units[i] = dataclasses.replace(units[i], evaluation=failed)
    return dataclasses.replace(comparison, units=tuple(units))


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


def test_floors_are_means_of_the_units_that_have_a_score():
    comparison = sample_comparison()
    changed = unscored(comparison, [0], lambda i: "silent")
    first, second, third, *_ = comparison.units
    assert first.site == third.site
    assert first.kind == third.kind
    expected = np.mean(
        [u.evaluation.floors["oracle"].values["correlation"] for u in (second, third)]
    )
    parts = {p.id: p for p in picture(changed) if isinstance(p, Table)}
    columns = {c.title: c for c in parts["beside"].columns}
    assert float(columns["oracle"].cells[0].sort) == pytest.approx(expected)
    assert columns["scored"].cells[0].text == "2"
    (chart,) = [p for p in picture(changed) if isinstance(p, Chart)]
    (line,) = [s for s in chart.series if s.name == "oracle of neurons"]
    assert line.y[0] == pytest.approx(expected)
    only = unscored(comparison, [i for i in range(12) if i not in (1, 2)], lambda i: "silent")
    matplotlib.use("agg")
    lines = {line.get_label(): line for line in only.plot().lines}
    assert lines["oracle"].get_ydata()[0] == pytest.approx(expected)


def test_the_differences_say_what_their_interval_and_their_p_are():
    (table,) = [
        p for p in picture(sample_comparison()) if isinstance(p, Table) and p.id == "contrasts"
    ]
    columns = {c.title: c for c in table.columns}
    assert "symmetric bootstrap-t over units" in columns["low"].help
    assert "of this row alone, uncorrected" in columns["p"].help
    overlaps = [c.overlap for c in sample_comparison().contrasts]
    assert [float(cell.sort) for cell in columns["overlap"].cells] == pytest.approx(overlaps)
    assert columns["overlap"].help


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


def test_each_kind_is_drawn_between_its_own_floor_and_ceiling(page):
    comparison = sample_comparison()
    traces = {t["name"]: t for t in read(page).figures()["scores"]["data"]}
    for kind, name in (("neuron", "neurons"), ("projection", "random projections")):
        for floor in ("token-lookup", "oracle"):
            drawn = traces[f"{floor} of {name}"]["y"]
            for site, y in zip(comparison.sites, drawn, strict=True):
                held = [
                    u.evaluation.floors[floor].values["correlation"]
                    for u in comparison
                    if (u.site, u.kind) == (site, kind)
                ]
                assert y == pytest.approx(np.mean(held), rel=1e-5)
