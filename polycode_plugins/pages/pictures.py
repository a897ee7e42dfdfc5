"""Charts and plots as pictures, for readers without JavaScript and for print."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from polycode_plugins.pages.charts import Axis, Chart, Series, whole_ticks
from polycode_plugins.pages.escaping import data_uri
from polycode_plugins.pages.palette import COLOURS, GRID, INK, SCALE_END, WARNING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TOKENS = {f"c{i}": colour for i, colour in enumerate(COLOURS)} | {"ink": INK, "warn": WARNING}
_MARKS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v",
    "star": "*",
}  # fmt: skip


_STROKES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}  # of matplotlib


def chart_image(chart: Chart) -> str:
    """The chart as an SVG data URI, in the colours of the light scheme."""
    from matplotlib.figure import Figure

    with _quiet(parse_math=False):
        figure = Figure(figsize=(8.6, 3.4))
        # Fixed margins: laying the figure out takes longer than drawing it.
        ax = figure.add_axes((0.085, 0.135, 0.905, 0.845))
        for series in chart.series:
            if series.shown:
                _draw(ax, series)
        _style(ax, chart.x, chart.y)
        if chart.x.whole:
            ax.set_xticks(whole_ticks([x for s in chart.series for x in s.x if x is not None]))
        return _svg(figure)


def picture_of(draw: Callable[[Axes], object]) -> str:
    """What `draw` draws into axes, as an SVG data URI; raises what it raises."""
    from matplotlib.figure import Figure

    with _quiet():
        figure = Figure(figsize=(4.3, 3.2), layout="constrained")
        draw(figure.subplots())
        return _svg(figure)


@contextmanager
def _quiet(*, parse_math: bool = True) -> Iterator[None]:
    import matplotlib

    with (
        # The salt makes the same chart the same bytes.
        matplotlib.rc_context(
            {
                "text.parse_math": parse_math,
                "svg.hashsalt": "polycode",
                "font.size": 9,
                "axes.formatter.useoffset": False,  # numbers on an axis are what they are
            }
        ),
        warnings.catch_warnings(),
    ):
        # A name in a script that matplotlib's font lacks shows boxes there; the tables have it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return data_uri(buffer.getvalue(), "image/svg+xml")


def _draw(ax: Axes, series: Series) -> None:
    colour = _colour(series.colour)
    x, y = _floats(series.x), _floats(series.y)
    width = 1.3 if series.symbol is None else 1.0
    if series.line is not None:
        ax.plot(
            x,
            _floats(series.joined),
            color=colour,
            lw=width,
            ls=_STROKES[series.line],
        )
    if series.symbol is None:
        return
    if series.low is not None and series.high is not None:
        low, high = _floats(series.low), _floats(series.high)
        known = np.isfinite(y) & np.isfinite(low) & np.isfinite(high)
        ends = np.abs(np.stack([(y - low)[known], (high - y)[known]]))
        ax.errorbar(x[known], y[known], ends, fmt="none", ecolor=colour, elinewidth=1, capsize=2)
    broken = np.asarray(series.broken or [False] * x.size, dtype=bool)
    ax.plot(x[~broken], y[~broken], _MARKS[series.symbol], color=colour, ms=5, mec="white", mew=0.5)
    ax.plot(x[broken], y[broken], "X", color=_TOKENS["warn"], ms=6.5, mec="white", mew=0.5)


def _colour(token: str) -> Any:
    if token.startswith("scale:"):
        import matplotlib

        return matplotlib.colormaps["viridis"](float(token[6:]) * SCALE_END)
    return _TOKENS[token]


def _style(ax: Axes, x: Axis, y: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for axis, spec in ((ax.xaxis, x), (ax.yaxis, y)):
        axis.label.set_text(spec.title)
        if spec.log:
            axis.axes.set(**{f"{axis.axis_name}scale": "log"})
            axis.set_major_formatter(FuncFormatter(_power))
            axis.set_minor_formatter(NullFormatter())
    if y.zero:
        ax.set_ylim(bottom=0)
    ax.grid(True, color=GRID, lw=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(which="both", length=0, colors=INK)
    ax.spines[:].set_visible(False)


def _power(value: float, _position: int | None = None) -> str:
    exponent = round(math.log10(value)) if value > 0 else 0
    if 0 <= exponent <= 3:
        return f"{10**exponent:,}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _floats(values: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([math.nan if v is None else v for v in values], dtype=np.float64)
