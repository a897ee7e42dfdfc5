"""Charts and plots as pictures, for readers without JavaScript and for print."""

from __future__ import annotations

import io
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from polycode_plugins.pages.charts import Axis, Chart, Series, whole_ticks
from polycode_plugins.pages.escaping import data_uri
from polycode_plugins.pages.palette import COLOURS, GRID, INK, SCALE_END, WARNING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.figure import Figure

_TOKENS = {f"c{i}": colour for i, colour in enumerate(COLOURS)} | {"ink": INK, "warn": WARNING}
_MARKS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v",
    "star": "*",
}  # fmt: skip


_STROKES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}  # of matplotlib


def chart_image(chart: Chart) -> str:
    """The chart as an SVG data URI, in the colours of the light scheme."""
    drawn = tuple(_drawn(series) for series in chart.series if series.shown)
    with _quiet(parse_math=False):
        return _sheet().image(chart.x, chart.y, drawn)


class _Sheet:
    """Axes that chart after chart is drawn into: to make them and their ticks takes longest.

    Pages are written again with most of their charts as they were: the last images are kept.
    """

    def __init__(self) -> None:
        from matplotlib.figure import Figure

        self._figure = Figure(figsize=(8.6, 3.4))
        # Fixed margins: laying the figure out takes longer than drawing it.
        ax = self._axes = self._figure.add_axes((0.085, 0.135, 0.905, 0.845))
        ax.grid(True, color=GRID, lw=0.7)
        ax.set_axisbelow(True)
        ax.tick_params(which="both", length=0, colors=INK)
        ax.spines[:].set_visible(False)
        self._own = set(ax.get_children())
        self.image = lru_cache(maxsize=64)(self._image)

    def _image(self, x: Axis, y: Axis, drawn: Sequence[Series]) -> str:
        ax = self._axes
        for artist in set(ax.get_children()) - self._own:
            artist.remove()
        ax.containers.clear()  # of error bars
        ax.relim()
        ax.set(xscale="linear", yscale="linear", xlim=(0, 1), ylim=(0, 1))  # where nothing is drawn
        ax.set_autoscale_on(True)
        for axis, spec in ((ax.xaxis, x), (ax.yaxis, y)):
            _style(axis, spec)
        for series in drawn:
            _draw(ax, series)
        if x.whole:
            ax.set_xticks(whole_ticks([v for s in drawn for v in s.x if v is not None]))
        if y.zero:
            ax.set_ylim(bottom=0)
        return _svg(self._figure)


_sheets = threading.local()


def _sheet() -> _Sheet:
    """The sheet of this thread; another one where the settings of matplotlib have changed."""
    import matplotlib

    settings = matplotlib.rcParams.copy()
    if getattr(_sheets, "settings", None) != settings:
        _sheets.settings, _sheets.sheet = settings, _Sheet()
    sheet: _Sheet = _sheets.sheet
    return sheet


def _drawn(series: Series) -> Series:
    """What the picture of a series depends on, and as a key."""
    low, high = (None if v is None else tuple(v) for v in (series.low, series.high))
    return Series(
        "",
        tuple(series.x),
        tuple(series.y),
        series.colour,
        series.line,
        series.symbol,
        low,
        high,
        tuple(series.broken),
    )


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


def _style(axis: XAxis | YAxis, spec: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    axis.label.set_text(spec.title)
    scale = "log" if spec.log else "linear"
    axis.axes.set(**{f"{axis.axis_name}scale": scale})  # with its own ticks and numbers
    if spec.log:
        axis.set_major_formatter(FuncFormatter(_power))
        axis.set_minor_locator(NullLocator())


def _power(value: float, _position: int | None = None) -> str:
    exponent = round(math.log10(value)) if value > 0 else 0
    if 0 <= exponent <= 3:
        return f"{10**exponent:,}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _floats(values: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([math.nan if v is None else v for v in values], dtype=np.float64)
