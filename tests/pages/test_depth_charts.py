"""Charts by depth."""

from __future__ import annotations

import math

import polycode_plugins as pc
from polycode_plugins.metrics import chapter
from polycode_plugins.pages import charts, depth_charts


def test_sites_that_differ_in_numbers_only_are_joined():
    def grouped(*names):
        return depth_charts.families([pc.Site(n, i) for i, n in enumerate(names)])

    assert grouped("a.0", "a.1") == [("a.*", [0, 1])]
    assert grouped("a.0.x", "a.0.y", "a.1.x", "a.1.y") == [("a.*.x", [0, 2]), ("a.*.y", [1, 3])]
    assert grouped("conv", "fc", "a.0", "a.1") == [("", [0, 1, 2, 3])]


def test_an_undefined_value_is_a_gap_in_the_chart_and_a_word_in_its_label():
    quantity = chapter.quantity("share", [1.0, None, math.nan], [None, None, (0.0, 1.0)])
    sites = [pc.Site(f"a.{i}", i) for i in range(3)]
    drawn = depth_charts.by_depth("c", "t", "c", charts.Axis("share"), sites, [quantity])
    points = charts.plotly_figure(drawn)["data"][-1]
    assert points["y"] == [1.0, None, None]
    assert ["undefined" in t for t in points["text"]] == [False, True, True]


def test_error_bars_reach_to_the_ends_of_a_lopsided_interval():
    quantity = chapter.quantity("share", [1.0, 2.0], [(0.5, 3.0), None])
    sites = [pc.Site(f"a.{i}", i) for i in range(2)]
    drawn = depth_charts.by_depth("c", "t", "c", charts.Axis("share"), sites, [quantity])
    bars = charts.plotly_figure(drawn)["data"][-1]["error_y"]
    assert (bars["array"], bars["arrayminus"]) == ([2.0, None], [0.5, None])


def test_quantities_with_intervals_stand_beside_each_other_and_ticks_stay_whole():
    sites = [pc.Site(f"a.{i}", i) for i in range(2)]
    both = [
        depth_charts.Quantity(name, [1.0, 2.0], [["x"], ["y"]], [0.5, 1.5], [1.5, 2.5])
        for name in ("one", "other")
    ]
    drawn = depth_charts.by_depth("c", "t", "c", charts.Axis("share"), sites, both)
    assert [list(s.x) for s in drawn.series] == [[-0.05, 0.95], [0.05, 1.05]]
    assert charts.plotly_figure(drawn)["layout"]["xaxis"]["tickvals"] == [0, 1]
    bare = [depth_charts.Quantity(q.name, q.values, q.texts) for q in both]
    drawn = depth_charts.by_depth("c", "t", "c", charts.Axis("share"), sites, bare)
    assert [list(s.x) for s in drawn.series] == [[0, 1], [0, 1]]


def test_a_level_is_seen_at_a_single_site_too():
    one = depth_charts.Quantity("share", [1.0], [["x"]])
    sites = [pc.Site("a.0", 0)]
    drawn = depth_charts.by_depth(
        "c", "t", "c", charts.Axis("share"), sites, [one], level=(1.2, "one")
    )
    level = drawn.series[0]
    assert (level.x[0] < 0 < level.x[1], list(level.y)) == (True, [1.2, 1.2])
    assert charts.plotly_figure(drawn)["layout"]["xaxis"]["tickvals"] == [0]
    assert depth_charts.across([1.0, None]) == (range(2), [1.0, None])
