"""A map of numbers over depth: one row for each quantity, one cell for each site.

The same on a screen, on paper and without scripts. A row spans the page whatever its number of
cells: 6 sites show their numbers, 600 their colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from polycode_plugins.pages.palette import SHADES

#: So many cells have room for their numbers.
WRITTEN = 14
#: Values that span more than this factor are coloured by their logarithm.
_WIDE = 30.0


@dataclass(frozen=True)
class HeatCell:
    """A cell as the template draws it; `shade` is a class of the style sheet."""

    shade: str
    text: str
    title: str
    doubtful: bool


@dataclass(frozen=True)
class HeatRow:
    """One quantity.

    Attributes:
        name: in words, with its unit in brackets.
        sites: names, in depth order; foreign text is fine.
        values: one for each site; None where it is undefined.
        doubtful: True where the number is not to be relied on; none is where it is empty.
        section: id of the section of the page that says what the quantity is.
    """

    name: str
    sites: Sequence[str]
    values: Sequence[float | None]
    doubtful: Sequence[bool] = ()
    section: str = ""

    @property
    def packed(self) -> bool:
        """Whether the cells have no room for their numbers."""
        return len(self.values) > WRITTEN

    @property
    def ends(self) -> str:
        """The smallest and the largest value, as text."""
        known = _finite(self.values)
        return f"{_short(min(known))} to {_short(max(known))}" if known else "undefined"

    @property
    def cells(self) -> list[HeatCell]:
        """What is drawn."""
        cells = []
        doubtful = self.doubtful or [False] * len(self.values)
        rows = zip(self.sites, self.values, places(self.values), doubtful, strict=True)
        for site, value, place, doubt in rows:
            text = "undefined" if place is None or value is None else _short(value)
            title = f"{site}: {text}{' (doubtful)' if doubt else ''}"
            shade = "unknown" if place is None else f"shade-{round((SHADES - 1) * place)}"
            cells.append(HeatCell(shade, text, title, bool(doubt)))
        return cells


@dataclass(frozen=True)
class HeatMap:
    """Quantities over depth; see `HeatRow`."""

    template: ClassVar[str] = "heat_map.html.j2"
    id: str
    title: str
    caption: str
    rows: Sequence[HeatRow]

    @property
    def any_doubtful(self) -> bool:
        """Whether a cell is hatched."""
        return any(any(row.doubtful) for row in self.rows)


def _finite(values: Sequence[float | None]) -> list[float]:
    return [v for v in values if v is not None and math.isfinite(v)]


def places(values: Sequence[float | None]) -> list[float | None]:
    """Where each value lies between the smallest (0) and the largest (1); all alike are at 1/2."""
    known = _finite(values)
    if not known:
        return [None for _ in values]
    low, high = min(known), max(known)
    scale = math.log if low > 0 and high / low > _WIDE else float
    span = scale(high) - scale(low)
    places: list[float | None] = []
    for value in values:
        if value is None or not math.isfinite(value):
            places.append(None)
        else:
            places.append((scale(value) - scale(low)) / span if span > 0 else 0.5)
    return places


def _short(value: float) -> str:
    form = ".3g" if value == 0 or 0.01 <= abs(value) < 10000 else ".1e"
    return format(value, form).replace("-", "\u2212")
