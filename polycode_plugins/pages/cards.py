"""What a notebook shows of an object: what was found, what is doubtful, and one small picture."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polycode_plugins.pages.escaping import data_uri, printable

if TYPE_CHECKING:
    from polycode_plugins.pages.heat_maps import HeatRow

_WIDTH = 88  # characters of a line in a terminal
_DOUBTS = 4  # of which a card shows the sentences
_FRAME = "max-width:46em;padding:10px 14px;border:1px solid #8a929e66;border-radius:8px"
_DOUBT = "margin:4px 0;padding-left:8px;border-left:3px solid #c2261c"


@dataclass(frozen=True)
class Card:
    """An object in a few lines; every text may be foreign.

    Attributes:
        title: what it is, in one line.
        sentences: what was found.
        doubts: what keeps that from meaning what it seems to, the gravest first.
        more: where the rest is, in Python.
        image: a picture as a data URI; "" for none.
    """

    title: str
    sentences: Sequence[str] = ()
    doubts: Sequence[str] = ()
    more: str = ""
    image: str = ""

    def text(self) -> str:
        """For a terminal: the title, what was found, and how many doubts there are."""
        lines = [self.title]
        for sentence in self.sentences:
            lines += textwrap.wrap(
                printable(sentence), _WIDTH, initial_indent="  ", subsequent_indent="    "
            )
        if self.doubts:
            count = "1 doubt" if len(self.doubts) == 1 else f"{len(self.doubts)} doubts"
            lines.append(f"  {count}: see {self.more}" if self.more else f"  {count}")
        return "\n".join(lines)

    def html(self) -> str:
        """For a notebook."""
        parts = [f"<strong>{_escaped(self.title)}</strong>"]
        parts += [f'<p style="margin:4px 0">{_escaped(said)}</p>' for said in self.sentences]
        parts += [f'<p style="{_DOUBT}">{_escaped(said)}</p>' for said in self.doubts[:_DOUBTS]]
        if beyond := len(self.doubts) - _DOUBTS:
            where = f": see <code>{_escaped(self.more)}</code>" if self.more else ""
            if beyond > 0:
                parts.append(f'<p style="{_DOUBT}">and {beyond} more{where}</p>')
        if self.image:
            style = "max-width:100%;background:#fff;border-radius:6px;margin-top:6px"
            parts.append(f'<img src="{self.image}" style="{style}" alt="">')
        return f'<div style="{_FRAME}">{"".join(parts)}</div>'


def heat_image(rows: Sequence[HeatRow]) -> str:
    """The map over layers, small, as a data URI."""
    import io

    import numpy as np
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    from polycode_plugins.pages.heat_maps import places
    from polycode_plugins.pages.palette import INK, SCALE_END

    most = max(len(row.values) for row in rows)
    figure = Figure(figsize=(6.4, 0.34 * len(rows) + 0.3), layout="constrained", dpi=110)
    panels = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for ax, row in zip(panels, rows, strict=True):
        shown = [np.nan if v is None else v * SCALE_END for v in places(row.values)]
        ax.imshow(
            np.array([shown]), cmap=colormaps["viridis"], vmin=0, vmax=1, aspect="auto",
            interpolation="nearest",
        )  # fmt: skip
        for i, cell in enumerate(row.cells):
            if cell.doubtful:
                ax.axvspan(i - 0.5, i + 0.5, fill=False, hatch="///", edgecolor="white", lw=0)
            if most <= 8:
                dark = shown[i] < 0.5
                colour = "white" if dark else INK
                ax.text(i, 0, cell.text, ha="center", va="center", fontsize=7, color=colour)
        ax.set_yticks([0], [row.name.replace("$", r"\$")], fontsize=7)
        ax.set_xticks([])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return data_uri(buffer.getvalue(), "image/png")


def _escaped(text: str) -> str:
    return html.escape(printable(text))
