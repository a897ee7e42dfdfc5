"""How the figures look: column widths, type that stays legible there, colours for every eye."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polycode_plugins.files.storage import write_file
from polycode_plugins.pages.palette import COLOURS, FAINT, INK, MARKERS, SCALE_END

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "FAINT",
    "INK",
    "MARKERS",
    "ONE",
    "TWO",
    "letter",
    "panels",
    "save",
    "shade",
    "style",
]

#: One and two columns of a paper, in inches.
ONE, TWO = 3.4, 7.0

_STYLE: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "legend.fontsize": 7,
    "legend.frameon": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "polycode",
}


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures, for the time they are drawn and written."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def panels(
    columns: int, *, rows: int = 1, width: float = TWO, height: float = 2.5
) -> tuple[Figure, Any]:
    """A figure and its axes [rows, columns]; `height` is that of one row, in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, axes


def letter(axes: Sequence[Axes]) -> None:
    """Letters before the titles of panels."""
    for name, ax in zip("abcdefghijkl", axes, strict=False):
        ax.set_title(f"$\\bf{{{name}}}$  {ax.get_title(loc='left')}", loc="left")


def shade(place: float) -> Any:
    """A colour of viridis for a place from 0 to 1, without its palest fifth."""
    import matplotlib

    return matplotlib.colormaps["viridis"](SCALE_END * place)


def save(figure: Figure, stem: Any) -> None:
    """Write STEM.pdf and STEM.png (200 dpi), the same bytes for the same figure.

    Raises:
        StateError: when a file cannot be written.
    """
    made: Any = {
        "pdf": {"metadata": {"CreationDate": None, "Creator": None}},
        "png": {"dpi": 200, "metadata": {"Software": None}},
    }
    with style():
        for kind, settings in made.items():
            write_file(
                Path(f"{stem}.{kind}"),
                partial(figure.savefig, format=kind, **settings),
            )
