"""The picture of a comparison."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from explanation_samples import sample_comparison
from unscored_units import unscored

from polycode_plugins.explainers.comparison.picture import picture
from polycode_plugins.pages.charts import Chart
from polycode_plugins.pages.tables import Table


def test_floors_are_means_of_the_units_that_have_a_score():
    comparison = sample_comparison()
    changed = unscored(comparison, [0], lambda i: "silent")
    first, second, third, *_ = comparison.units
    assert first.site == third.site
    assert first.kind == third.kind
    score = changed.headline_scores[0]
    assert score == "correlation_random"
    known = [u for u in (second, third) if u.score(score) is not None]
    expected = np.mean([u.evaluation.floors["oracle"].values[score] for u in known])
    parts = {p.id: p for p in picture(changed) if isinstance(p, Table)}
    columns = {c.title: c for c in parts["beside"].columns}
    assert float(columns["oracle"].cells[0].sort) == pytest.approx(expected)
    assert columns["scored"].cells[0].text == str(len(known))
    (chart,) = [p for p in picture(changed) if isinstance(p, Chart) and p.id == "scores"]
    (line,) = [s for s in chart.series if s.name == "oracle of neurons"]
    assert line.y[0] == pytest.approx(expected)
    only = unscored(comparison, [i for i in range(12) if i not in (1, 2)], lambda i: "silent")
    matplotlib.use("agg")
    lines = {line.get_label(): line for line in only.plot().lines}
    published = [u.evaluation.floors["oracle"].values["correlation"] for u in (second, third)]
    assert lines["oracle"].get_ydata()[0] == pytest.approx(np.mean(published))


def test_the_differences_say_what_their_interval_and_their_p_are():
    (table,) = [
        p for p in picture(sample_comparison()) if isinstance(p, Table) and p.id == "contrasts"
    ]
    columns = {c.title: c for c in table.columns}
    assert "symmetric bootstrap-t over units" in columns["low"].help
    assert "of this row alone, uncorrected" in columns["p"].help
    made = sample_comparison()
    overlaps = [
        c.overlap
        for score in made.headline_scores
        for c in made.contrast("neuron", "projection", score)
    ]
    assert [float(cell.sort) for cell in columns["overlap"].cells] == pytest.approx(overlaps)
    assert columns["overlap"].help


def test_each_floor_of_the_differences_has_a_line_of_its_own_and_is_named():
    (chart,) = [
        p for p in picture(sample_comparison()) if isinstance(p, Chart) and p.id == "differences"
    ]
    strokes = {s.name.partition(":")[0]: s.line for s in chart.series if ": " in s.name}
    assert len(set(strokes.values())) == len(strokes) >= 2
    named = {stroke: text for _, stroke, text in chart.notes}
    assert named[strokes["token-lookup"]] == "a look-up of tokens"
    assert set(named) == set(strokes.values())
