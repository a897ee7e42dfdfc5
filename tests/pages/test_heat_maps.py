from __future__ import annotations

import math

import pytest

from polycode_plugins.pages.heat_maps import HeatMap, HeatRow
from polycode_plugins.pages.pages import Page, Section, render
from polycode_plugins.pages.palette import SHADES


def row(values, doubtful=()):
    return HeatRow("a quantity", [f"site {i}" for i in range(len(values))], values, doubtful)


def test_shades_run_from_the_smallest_to_the_largest_value():
    shades = [cell.shade for cell in row([3.0, 1.0, 2.0]).cells]
    assert shades == [f"shade-{SHADES - 1}", "shade-0", f"shade-{round((SHADES - 1) / 2)}"]
    assert [cell.shade for cell in row([2.0, 2.0]).cells] == [
        f"shade-{round((SHADES - 1) / 2)}"
    ] * 2


def test_values_over_decades_are_shaded_by_their_logarithm():
    middle = row([1.0, 10.0, 100.0]).cells[1].shade
    assert middle == f"shade-{round((SHADES - 1) / 2)}"
    with_negative = row([-1.0, 10.0, 100.0]).cells[1].shade  # no logarithm: near the low end
    assert with_negative == f"shade-{round((SHADES - 1) * 11 / 101)}"


def test_what_is_undefined_or_doubtful_is_told_apart():
    cells = row([1.0, None, math.nan, 2.0], [False, False, True, True]).cells
    assert [c.shade for c in cells][1:3] == ["unknown", "unknown"]
    assert cells[1].title == "site 1: undefined"
    assert cells[3].title == "site 3: 2 (doubtful)"
    assert [c.doubtful for c in cells] == [False, False, True, True]


def test_many_cells_give_the_ends_in_place_of_the_numbers():
    assert not row([1.0] * 14).packed
    many = row([float(i) for i in range(600)])
    assert many.packed
    assert many.ends == "0 to 599"
    page = render(Page("t", "s", [Section("a", "A", [HeatMap("map", "M", "C", [many])])]))
    assert page.count("heatcell shade-") >= 600
    assert page.count("packed") >= 600


@pytest.mark.parametrize("doubtful", [(), (True, False)])
def test_the_legend_explains_hatching_where_there_is_some(doubtful):
    part = HeatMap("map", "Over <layers>", "c", [row([1.0, 2.0], doubtful)])
    page = render(Page("t", "s", [Section("a", "A", [part])]))
    assert ("hatched: a doubt" in page) is bool(doubtful)
    assert "Over &lt;layers&gt;" in page
