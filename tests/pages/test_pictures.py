"""Charts and plots as pictures."""

from __future__ import annotations

from base64 import b64decode

import matplotlib
import pytest

from polycode_plugins.pages import pictures
from polycode_plugins.pages.charts import Axis, Chart, Series

LINE = Series("a", [0, 1, 2], [0.5, None, 0.7], "c1", line="dash")
POINTS = Series(
    "b", [0, 1, 2], [0.1, 0.2, 0.4], "scale:0.4", symbol="square", low=[0, 0.1, None],
    high=[0.2, 0.5, None], broken=[False, True, False],
)  # fmt: skip
CURVE = Series("c", [1, 10, 1000], [1e-6, 0.1, 10], symbol="star")
CHARTS = {
    "line": (Axis("depth", whole=True), Axis("value"), [LINE]),
    "from zero": (Axis("depth", whole=True), Axis("value", zero=True), [LINE, POINTS]),
    "logarithmic": (Axis("rank", log=True), Axis("variance", log=True), [CURVE]),
    "half logarithmic": (Axis("rank", log=True), Axis("value"), [CURVE]),
    "nothing known": (
        Axis("depth"),
        Axis("value"),
        [Series("a", [0, 1], [None, None], line="dot")],
    ),
    "empty": (Axis("depth"), Axis("value"), []),
    "empty and logarithmic": (Axis("depth", log=True), Axis("value", log=True), []),
    "empty from zero": (Axis("depth", whole=True), Axis("value", zero=True), []),
}


def chart(name):
    x, y, series = CHARTS[name]
    return Chart(name, "a chart", "of something", x, y, series)


@pytest.fixture
def fresh(monkeypatch):
    """A sheet that nothing was drawn on."""

    def renewed():
        for name in ("sheet", "settings"):
            monkeypatch.delattr(pictures._sheets, name, raising=False)

    renewed()
    return renewed


def test_a_chart_is_the_same_whatever_was_drawn_before_it(fresh):
    alone = {}
    for name in CHARTS:
        fresh()
        alone[name] = pictures.chart_image(chart(name))
    assert len(set(alone.values())) == len(CHARTS)
    fresh()
    for name in [*CHARTS, *reversed(CHARTS)]:
        assert pictures.chart_image(chart(name)) == alone[name]
        pictures._sheets.sheet.image.cache_clear()
    assert len(pictures._sheets.sheet._axes.containers) <= 1  # nothing is left of other charts


@pytest.mark.parametrize(
    "change",
    [
        {"x": [0, 1, 3]},
        {"y": [0.1, 0.2, 0.5]},
        {"colour": "c2"},
        {"line": "dot"},
        {"symbol": "circle"},
        {"low": [0, 0.15, None]},
        {"high": [0.2, 0.6, None]},
        {"broken": [True, False, False]},
    ],
)
def test_what_is_drawn_otherwise_is_another_picture(change):
    given = {k: getattr(POINTS, k) for k in ("x", "y", "colour", "symbol", "low", "high", "broken")}
    first, other = (
        pictures.chart_image(Chart("a", "", "", Axis("x"), Axis("y"), [Series("b", **values)]))
        for values in (given, given | change)
    )
    assert first != other


def test_what_a_picture_does_not_show_leaves_it_as_it_was():
    named = Series("another", LINE.x, LINE.y, "c1", line="dash", key="k", hover=[["a"]] * 3)
    hidden = Series("c", [5], [5], symbol="star", shown=False)
    x, y, _ = CHARTS["line"]
    assert pictures.chart_image(Chart("z", "b", "c", x, y, [named, hidden])) == (
        pictures.chart_image(chart("line"))
    )


def test_settings_of_matplotlib_are_followed_when_they_change(fresh):
    before = pictures.chart_image(chart("line"))
    with matplotlib.rc_context({"axes.labelcolor": "#123456"}):
        changed = pictures.chart_image(chart("line"))
    assert "#123456" in b64decode(changed.partition(",")[2]).decode()
    assert pictures.chart_image(chart("line")) == before
