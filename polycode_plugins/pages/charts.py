"""A chart, described once and drawn twice: by plotly for the screen, by matplotlib for paper.

The static drawing is what a reader sees without JavaScript, in print, and until plotly has drawn.
Colours are tokens ("ink", "c0".. for a palette, "scale:0.4" for a place on the depth scale): only
when the page is shown is it known whether it is light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from polycode_plugins.pages.escaping import plotly_text

Numbers = Sequence[float | None]
Symbol = Literal["circle", "square", "diamond", "triangle-up", "triangle-down", "star"]
SYMBOLS: tuple[Symbol, ...] = (
    "circle", "square", "diamond", "triangle-up", "triangle-down", "star",
)  # fmt: skip
_SIGNS: dict[Symbol, str] = dict(zip(SYMBOLS, "●■◆▲▼★", strict=True))
PALETTE = 6  # colours c0 .. c5 of the style sheet

#: Characters of a name on one line of a hover label: about what a phone is wide.
_HOVER_WIDTH = 38


#: How a line is drawn.
Line = Literal["solid", "dash", "dot", "dashdot"]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: what is on it, and in brackets the unit.
        log: whether it is logarithmic; all values are above 0 then.
        whole: whether only whole numbers are marked.
        zero: whether it begins at 0.
    """

    title: str
    log: bool = False
    whole: bool = False
    zero: bool = False


@dataclass(frozen=True)
class Series:
    """One line or cloud of points.

    Attributes:
        name: shown in the legend and first in every hover label; foreign text is fine.
        x, y: the points; None leaves a gap.
        colour: a token, see the module's docstring.
        line: None for points alone, else how they are joined.
        symbol: of the points; None for a line alone.
        low, high: ends of the error bars.
        broken: True where a point is to be drawn as a cross: its number is not to be trusted.
        hover: for each point the lines of its hover label; None shows name, x and y.
        key: what a chooser calls the series; "" where nothing chooses.
        shown: whether it is drawn at first.
        legend: whether the legend lists it.
    """

    name: str
    x: Numbers
    y: Numbers
    colour: str = "c0"
    line: Line | None = None
    symbol: Symbol | None = None
    low: Numbers | None = None
    high: Numbers | None = None
    broken: Sequence[bool] = ()
    hover: Sequence[Sequence[str]] | None = None
    key: str = ""
    shown: bool = True
    legend: bool = True

    @property
    def joined(self) -> Numbers:
        """`y` as the line goes: with a gap at what is broken."""
        if not self.broken:
            return self.y
        return [None if b else y for y, b in zip(self.y, self.broken, strict=True)]


@dataclass(frozen=True)
class Choice:
    """One row of a chooser: a name, its colour, and the key of its series for each kind."""

    name: str
    colour: str
    keys: dict[str, str]


@dataclass(frozen=True)
class Chart:
    """A figure with its caption.

    Attributes:
        id: unique on the page; letters, digits and hyphens.
        title: a few words, as plain text.
        caption: one or two sentences on what is drawn, as plain text.
        series: what is drawn, in order.
        scale: (label of the low end, of the high end) where colours are places on the depth scale.
        choices: rows of a list of checkboxes that shows and hides series.
        notes: further entries of the legend.
    """

    template: ClassVar[str] = "chart.html.j2"
    id: str
    title: str
    caption: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    scale: tuple[str, str] | None = None
    choices: Sequence[Choice] = ()
    notes: Sequence[tuple[str, str, str]] = ()

    @property
    def shown(self) -> frozenset[str]:
        """Keys of the series that are drawn at first."""
        return frozenset(s.key for s in self.series if s.shown)

    @property
    def kinds(self) -> list[str]:
        """Kinds of series the chooser has a column for."""
        return list(dict.fromkeys(kind for choice in self.choices for kind in choice.keys))

    @property
    def legend(self) -> list[tuple[str, str, str]]:
        """Entries as (colour token, character, or a `Line`, text)."""
        entries = [
            (s.colour, _SIGNS[s.symbol] if s.symbol else s.line or "solid", s.name)
            for s in self.series
            if s.legend
        ]
        # One series needs no legend: the title says what it is.
        return [*(entries if len(entries) > 1 else []), *self.notes]


def plotly_figure(chart: Chart) -> dict[str, Any]:
    """Data and layout for `Plotly.newPlot`; every foreign text in it is escaped for plotly."""
    x = [v for s in chart.series for v in s.x if v is not None]
    y = [v for s in chart.series for v in s.y if v is not None]
    layout = {"xaxis": _plotly_axis(chart.x, x), "yaxis": _plotly_axis(chart.y, y)}
    return {"data": [t for s in chart.series for t in _traces(s, chart)], "layout": layout}


def whole_ticks(values: Sequence[float], most: int = 13) -> list[int]:
    """At most `most` whole numbers, evenly spaced, of those nearest to `values`."""
    if not values:
        return []
    low, high = math.ceil(min(values) - 0.5), math.floor(max(values) + 0.5)
    steps = (m * 10**e for e in range(9) for m in (1, 2, 5))
    step = next(s for s in steps if (high - low) // s < most)
    return list(range(-(-low // step) * step, high + 1, step))


def hover_text(lines: Sequence[str]) -> str:
    """The lines of a hover label, escaped; the first is a name and is broken where it is long."""
    name, *rest = lines
    parts = [name[i : i + _HOVER_WIDTH] for i in range(0, len(name), _HOVER_WIDTH)] or [""]
    title = "<br>".join(f"<b>{plotly_text(part)}</b>" for part in parts)
    return "<br>".join([title, *(plotly_text(line) for line in rest)])


def significant(value: float | None, digits: int = 6) -> float | None:
    """`value` rounded to what a screen can show; None for what is no number."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def _traces(series: Series, chart: Chart) -> list[dict[str, Any]]:
    """The line and the points of a series; the line leaves out what is broken."""
    common: dict[str, Any] = {
        "type": "scatter",
        "name": plotly_text(series.name),
        "x": _rounded(series.x),
        "meta": series.key,
        "visible": series.shown,
    }
    traces: list[dict[str, Any]] = []
    if series.line is not None:
        stroke = {"color": series.colour, "dash": series.line, "width": 1.75}
        line = {"mode": "lines", "y": _rounded(series.joined), "line": stroke}
        over = _hover(series, chart) if series.symbol is None else {"hoverinfo": "skip"}
        traces.append(common | line | over)
    if series.symbol is not None:
        broken = list(series.broken) or [False] * len(series.x)
        marker = {
            "symbol": ["x" if b else series.symbol for b in broken],
            "color": ["warn" if b else series.colour for b in broken],
            "size": 8,
        }
        points = {"mode": "markers", "y": _rounded(series.y), "marker": marker}
        traces.append(common | points | _hover(series, chart) | _errors(series))
    return traces


def _hover(series: Series, chart: Chart) -> dict[str, Any]:
    if series.hover is None:
        x, y = (plotly_text(axis.title.split(" (")[0]) for axis in (chart.x, chart.y))
        lines = f"{hover_text([series.name])}<br>{x} %{{x}}<br>{y} %{{y:.3g}}"
        return {"hovertemplate": f"{lines}<extra></extra>"}
    return {
        "text": [hover_text(lines) for lines in series.hover],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _errors(series: Series) -> dict[str, Any]:
    if series.low is None or series.high is None:
        return {}
    up, down = [], []
    for y, low, high in zip(series.y, series.low, series.high, strict=True):
        known = None if y is None or low is None or high is None else (high - y, y - low)
        up.append(significant(known[0]) if known else None)
        down.append(significant(known[1]) if known else None)
    bars = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
    return {"error_y": {**bars, "color": series.colour, "thickness": 1.5, "width": 4}}


def _plotly_axis(axis: Axis, values: Sequence[float]) -> dict[str, Any]:
    spec: dict[str, Any] = {"title": {"text": plotly_text(axis.title)}}
    if axis.log:
        # Plotly draws these labels a quarter larger than it is told.
        font = {"size": 10}
        spec |= {"type": "log", "exponentformat": "power", "dtick": 1, "tickfont": font}
        ends = [math.log10(v) for v in (min(values), max(values))] if values else [0.0, 1.0]
        pad = 0.03 * max(ends[1] - ends[0], 0.3)
        spec["range"] = [significant(ends[0] - pad), significant(ends[1] + pad)]
    if axis.whole:
        spec |= {"tickmode": "array", "tickvals": whole_ticks(values)}
    if axis.zero:
        spec["rangemode"] = "tozero"
    return spec


def _rounded(values: Numbers) -> list[float | None]:
    return [significant(v) for v in values]
