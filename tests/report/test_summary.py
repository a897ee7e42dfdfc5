from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

import polycode_plugins as pc
from polycode_plugins.metrics import Grave, View
from polycode_plugins.report.summary import Doubts, summary


@dataclass(frozen=True, eq=False)
class Planted(pc.Result):
    names: ClassVar[dict[str, str]] = {"height": "height of it"}
    height: float
    other: float
    warnings: tuple[str, ...] = ()
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Metric(pc.Metric):
    name: ClassVar[str] = "planted"
    result: ClassVar[type[pc.Result]] = Planted

    def accumulators(self):
        return {}

    def compute(self, accumulators, site):
        raise AssertionError


class Analysis:
    """As far as a summary looks."""

    def __init__(self, results):
        from polycode_plugins.metrics.site_warnings import all_warnings

        held = {f"layer.{i}": {"planted": r} for i, r in enumerate(results)}
        self.warnings = all_warnings(["planted"], held)
        sites = [pc.Site(name, i) for i, name in enumerate(held)]
        self.run = {}
        self.views = [View("m", "planted", Metric(), sites, list(results))]


def parts(results):
    made = Analysis(results)
    return summary(made, made.views).parts


def test_the_findings_say_from_where_to_where_and_how_sure():
    prose, _ = parts([Planted(2.0, 1, interval=(1.5, 2.5)), Planted(1.0, 1), Planted(4.0, 1)])
    (said,) = prose.paragraphs
    assert said == (
        "The height of it runs from 1 at layer.1 to 4 at layer.2; its median over all sites is 2."
    )
    (one,) = parts([Planted(2.0, 1, interval=(1.5, 2.5))])[0].paragraphs
    assert one == "The height of it is 2 at layer.0 (1.5 to 2.5)."


def test_a_grave_doubt_hatches_the_first_number_alone_and_stands_first():
    class Both(Planted):
        mapped: ClassVar[tuple[str, ...]] = ("height", "other")

    grave, care = Grave("the height is none"), "the rows are few"
    _, heat, doubts = parts([Both(1, 1, (care, grave)), Both(2, 2, (grave,)), Both(3, 3)])
    height, other = heat.rows
    assert height.doubtful == [True, True, False]
    assert other.doubtful == [True, False, False]
    assert isinstance(doubts, Doubts)
    assert [heading for heading, _ in doubts.groups] == ["Not to be read", "To be read with care"]
    assert doubts.groups[0][1] == [("Planted:", "At layer.0, layer.1: the height is none")]


def test_a_first_number_that_is_nowhere_to_be_read_has_no_row():
    class Both(Planted):
        mapped: ClassVar[tuple[str, ...]] = ("height", "other")

    grave = Grave("the height is none")
    _, heat, _ = parts([Both(1, 1, (grave,)), Both(2, 2, (grave,))])
    assert [row.name for row in heat.rows] == ["other"]


def test_findings_that_fail_are_one_sentence_and_the_rest_stands():
    class Broken(Planted):
        @classmethod
        def findings(cls, view):
            raise ZeroDivisionError("no")

    prose, heat = parts([Broken(1, 1), Broken(2, 2)])
    assert prose.paragraphs == ["The findings of Broken failed with ZeroDivisionError: no"]
    assert [row.values for row in heat.rows] == [[1.0, 2.0]]


@pytest.mark.parametrize("count", [1, 40])
def test_families_of_sites_have_rows_of_their_own(count):
    result = Planted(1.0, 1.0)
    sites = [pc.Site(f"blocks.{i // 2}.{'ab'[i % 2]}", i) for i in range(4 * count)]
    made = Analysis([result])
    made.views = [View("m", "planted", Metric(), sites, [result] * len(sites))]
    heat = next(p for p in summary(made, made.views).parts if hasattr(p, "rows"))
    assert [row.name for row in heat.rows] == [
        "height of it, blocks.*.a",
        "height of it, blocks.*.b",
    ]
    assert [len(row.values) for row in heat.rows] == [2 * count] * 2
