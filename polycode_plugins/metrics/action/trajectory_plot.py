"""Drawing trajectories: small multiples in one, two or three dimensions, coloured by time."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polycode_plugins.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from polycode_plugins.metrics.action.trajectory import Trajectories

# Viridis tells times apart for all readers; its last part is too pale for lines on white.
SCALE_END = 0.85
MAX_LABELS = 128  # more cannot be read


def draw(shown: Trajectories, n: int) -> Figure:
    """The first `n` trajectories; see `Trajectories.plot`."""
    import matplotlib.pyplot as plt

    if n < 1:
        raise DataError(f"n is the number of trajectories to draw, from 1, not {n!r}")
    n = min(n, len(shown))
    time, k = shown.points.shape[1:]
    columns = 1 if k == 1 else min(3, n)
    rows = -(-n // columns)
    scale = _times(time)
    size = (9.0, 1.8 * rows + 0.8) if k == 1 else (3.0 * columns + 1, 2.8 * rows)
    figure = plt.figure(figsize=size, layout="constrained")
    kind = {"projection": "3d"} if k >= 3 else {}
    panels = []
    for i in range(n):
        ax: Any = figure.add_subplot(rows, columns, i + 1, **kind)
        points = shown.points[i]
        if k == 1:
            points = np.column_stack([np.arange(time), points[:, 0]])
        _line(ax, points[:, :3], scale)
        ax.set_title(f"projection {shown.index[i]}, action {shown.kept_actions[i]:.3g}", fontsize=8)
        ax.tick_params(labelsize=6)
        panels.append(ax)
    if k == 1:
        _label_time(panels[-1], shown)
    figure.colorbar(scale, ax=panels, label="time step", shrink=0.8)
    return figure


def draw_one(ax: Any, points: np.ndarray[Any, Any]) -> None:
    """One trajectory [time, k] in flat axes: its first two coordinates, or the one against time."""
    time, k = points.shape
    scale = _times(time)
    if k == 1:
        points = np.column_stack([np.arange(time), points[:, 0]])
    _line(ax, points[:, :2], scale)
    ax.set_xlabel("time step" if k == 1 else "first coordinate of the projection")
    ax.set_ylabel("projection" if k == 1 else "second coordinate")
    ax.figure.colorbar(scale, ax=ax, label="time step")


def write_pdf(shown: Trajectories, path: Path) -> None:
    """The plot as a PDF file."""
    import matplotlib.pyplot as plt

    figure = draw(shown, 9)
    try:
        with warnings.catch_warnings():
            # Tokens come in every script, and the font has not all of them.
            warnings.filterwarnings("ignore", "Glyph", UserWarning)
            figure.savefig(path, format="pdf")
    finally:
        plt.close(figure)


def _times(count: int) -> Any:
    """Colours of the time steps from 0 to `count` - 1."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    colours = matplotlib.colormaps["viridis"](np.linspace(0, SCALE_END, 256))
    return ScalarMappable(Normalize(0, count - 1), ListedColormap(colours, "time"))


def _line(ax: Any, points: np.ndarray[Any, Any], scale: Any) -> None:
    """A line [time, 2 or 3] whose colour is the time, with a dot at every step."""
    from matplotlib.collections import LineCollection
    from mpl_toolkits.mplot3d.art3d import Line3DCollection  # type: ignore[import-untyped]

    segments: Any = np.stack([points[:-1], points[1:]], axis=1)
    times = np.arange(len(points))
    make: Any = LineCollection if points.shape[1] == 2 else Line3DCollection
    ax.add_collection(
        make(segments, array=times[:-1], cmap=scale.cmap, norm=scale.norm, linewidths=1.2)
    )
    ax.scatter(*points.T, c=times, cmap=scale.cmap, norm=scale.norm, s=5)


def _label_time(ax: Any, shown: Trajectories) -> None:
    ax.set_xlabel("time step")
    if shown.labels is None or len(shown.labels) > MAX_LABELS:
        return
    # Written out, since a line break or a tab would not be seen.
    texts = [label.encode("unicode_escape").decode() if "\n" in label or "\t" in label else label
             for label in shown.labels]  # fmt: skip
    ax.set_xticks(range(len(texts)), texts, rotation=90, fontsize=6)
    for text in ax.get_xticklabels():
        text.set_parse_math(False)
