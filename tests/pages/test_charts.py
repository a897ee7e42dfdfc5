"""Charts."""

from __future__ import annotations

from polycode_plugins.pages import charts


def test_ticks_are_whole_few_and_cover_the_depths():
    assert charts.whole_ticks([0, 3]) == [0, 1, 2, 3]
    assert charts.whole_ticks([0, 95]) == list(range(0, 96, 10))
    assert charts.whole_ticks([5]) == [5]
    assert charts.whole_ticks([]) == []
