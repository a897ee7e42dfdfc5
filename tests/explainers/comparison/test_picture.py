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
