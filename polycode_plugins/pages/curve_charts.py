"""Curves of many sites in one chart, coloured by depth, each shown or hidden by the reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polycode_plugins.pages.charts import Axis, Chart, Choice, Numbers, Series


@dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        name: of the site, or whatever it is of; foreign text is fine.
        x, y: the points; None leaves a gap.
        hover: lines of the hover label, the same at every point; None shows name, x and y.
    """

    name: str
    x: Numbers
    y: Numbers
    hover: Sequence[str] | None = None


def curves(
    id: str,
    title: str,
    caption: str,
    x: Axis,
    y: Axis,
    drawn: Sequence[Curve],
    *,
    kind: str = "curve",
    beside: tuple[str, Sequence[Curve]] | None = None,
) -> Chart:
    """A chart of one curve for each site.

    Args:
        id: unique on the page; letters, digits and hyphens.
        title: of the chart.
        caption: of the chart.
        x: the horizontal axis.
        y: the vertical axis.
        drawn: the curves, in depth order.
        kind: what the list calls them.
        beside: a second curve for each, dashed, and what they are called: the first, the middle and
            the last are shown until the reader chooses.
    """
    last = max(len(drawn) - 1, 1)
    colours = [f"scale:{i / last:.3f}" for i in range(len(drawn))]
    series = [
        Series(
            curve.name,
            curve.x,
            curve.y,
            colour,
            "solid",
            hover=_hover(curve),
            key=f"{kind}-{i}",
            legend=False,
        )
        for i, (curve, colour) in enumerate(zip(drawn, colours, strict=True))
    ]
    keys = [{kind: f"{kind}-{i}"} for i in range(len(drawn))]
    notes: list[tuple[str, str, str]] = []
    if beside is not None:
        name, others = beside
        at_first = {0, len(drawn) // 2, len(drawn) - 1}
        for i, curve in enumerate(others):
            keys[i][name] = f"beside-{i}"
            series.append(
                Series(
                    curve.name,
                    curve.x,
                    curve.y,
                    "ink",
                    "dash",
                    hover=_hover(curve),
                    key=f"beside-{i}",
                    shown=i in at_first,
                    legend=False,
                )
            )
        notes.append(("ink", "dash", name))
    choices = [
        Choice(curve.name, colour, key)
        for curve, colour, key in zip(drawn, colours, keys, strict=True)
    ]
    several = len(drawn) > 1
    return Chart(
        id,
        title,
        caption,
        x,
        y,
        series,
        scale=("first site", "last site") if several else None,
        choices=choices if several else (),
        notes=notes,
    )


def _hover(curve: Curve) -> Sequence[Sequence[str]] | None:
    return None if curve.hover is None else [curve.hover] * len(curve.x)
