"""Chapters of the report."""

from __future__ import annotations

import polycode_plugins as pc
from polycode_plugins.metrics import chapter


def test_warnings_that_differ_in_numbers_only_are_said_once():
    class Doubtful(pc.Result):
        picture = "A dot."

        def __init__(self, *warnings):
            object.__setattr__(self, "warnings", warnings)

    sites = [pc.Site(f"s{i}", i) for i in range(3)]
    results = [Doubtful("ratio 1.98 over 9 steps"), Doubtful("ratio 2.01 over 9 steps", "few")]
    view = chapter.View("m", "m", None, sites, [*results, Doubtful()])
    assert chapter.own_warnings(view) == [
        "At s0, s1 (with the numbers of s0): ratio 1.98 over 9 steps",
        "At s1: few",
    ]


def test_a_result_without_documented_fields_has_no_meanings():
    assert chapter.meanings(pc.Result) == {}
