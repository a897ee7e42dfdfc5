"""Quantities by depth: one point for each site, in the order in which the sites fire."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from polycode_plugins.activations import Site
from polycode_plugins.pages.charts import PALETTE, SYMBOLS, Axis, Chart, Numbers, Series

DEPTH = Axis("depth (order in the forward pass)", whole=True)


@dataclass(frozen=True)
class Quantity:
    """A number at each site.

    Attributes:
        name: what it is called in the legend and in hover labels.
        values: one for each site; None where it is undefined.
        texts: the same as hover labels show them, with the interval; one or more lines each.
        low, high: ends of the intervals; None where there are none.
        broken: True where the number is not to be trusted.
    """

    name: str
    values: Numbers
    texts: Sequence[Sequence[str]]
    low: Numbers | None = None
    high: Numbers | None = None
    broken: Sequence[bool] = ()


def by_depth(
    id: str,
    title: str,
    caption: str,
    axis: Axis,
    sites: Sequence[Site],
    quantities: Sequence[Quantity],
    *,
    level: tuple[float, str] | None = None,
    notes: Sequence[tuple[str, str, str]] = (),
) -> Chart:
    """A chart of quantities by depth; sites whose names differ only in numbers are joined.

    Quantities with intervals stand beside each other at each site, so that none hides another.

    Args:
        id: unique on the page; letters, digits and hyphens.
        title: of the chart.
        caption: of the chart.
        axis: the vertical one.
        sites: the sites, in depth order: the place of a site among them is its depth here.
        quantities: each with one number for every site.
        level: a horizontal line to compare with, as (height, name); left out where it is so far
            off that it would squeeze the points together.
        notes: further entries of the legend.
    """
    series = []
    groups = families(sites)
    beside = _beside(quantities)
    for q, quantity in enumerate(quantities):
        for g, (family, members) in enumerate(groups):
            colour = (g if len(quantities) == 1 else q) % PALETTE
            parts = [quantity.name] if len(quantities) > 1 or len(groups) == 1 else []
            parts += [family] if len(groups) > 1 else []
            series.append(
                Series(
                    " · ".join(parts),
                    x=[i + beside[q] for i in members],
                    y=[quantity.values[i] for i in members],
                    colour=f"c{colour}",
                    line="solid" if family else None,
                    symbol=SYMBOLS[(g if len(groups) > 1 else q) % len(SYMBOLS)],
                    low=_pick(quantity.low, members),
                    high=_pick(quantity.high, members),
                    broken=[bool(quantity.broken and quantity.broken[i]) for i in members],
                    hover=[[sites[i].name, f"depth {i}", *quantity.texts[i]] for i in members],
                )
            )
    if level is not None and _near(level[0], quantities):
        height, name = level
        places, heights = across([height] * len(sites))
        hover = [[name]] * len(places)
        series.insert(0, Series(name, places, heights, "ink", "dash", hover=hover))
    return Chart(id, title, caption, DEPTH, axis, series, notes=notes)


def families(sites: Sequence[Site]) -> list[tuple[str, list[int]]]:
    """Sites grouped by their names with the numbers left out, as (pattern, indices).

    `blocks.0.hook_resid_post` and `blocks.1.hook_resid_post` are one family, so that a line joins
    what belongs together. Where the names show no such order (more families than a chart can tell
    apart, or mostly single sites) all sites are one group with the pattern "".
    """
    groups: dict[str, list[int]] = {}
    for index, site in enumerate(sites):
        groups.setdefault(re.sub(r"\d+", "*", site.name), []).append(index)
    if len(groups) > PALETTE or any(len(members) < 2 for members in groups.values()):
        return [("", list(range(len(sites))))]
    return list(groups.items())


def across(values: Sequence[float | None]) -> tuple[Sequence[float], list[float | None]]:
    """Where a line passes that has these values at the sites, and the values there.

    A single site has no line, so it gets a level as broad as its place.
    """
    if len(values) == 1:
        return [-0.4, 0.4], [*values] * 2
    return range(len(values)), [*values]


def _beside(quantities: Sequence[Quantity]) -> list[float]:
    """How far from their site the points of each quantity stand, in sites."""
    among = len(quantities)
    if all(q.low is None for q in quantities):
        return [0.0] * among
    step = min(0.1, 0.6 / among)
    return [(q - (among - 1) / 2) * step for q in range(among)]


def _near(height: float, quantities: Sequence[Quantity]) -> bool:
    values = [v for q in quantities for v in q.values if v is not None]
    if not values:
        return False
    low, high = min(values), max(values)
    return low - max(high - low, 0.5) <= height <= high + max(high - low, 0.5)


def _pick(values: Numbers | None, members: Sequence[int]) -> Numbers | None:
    return None if values is None else [values[i] for i in members]
