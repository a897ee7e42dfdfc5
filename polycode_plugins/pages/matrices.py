"""A matrix of numbers as a picture: a row and a column for each name, one cell for each pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from polycode_plugins.pages.palette import SHADES

#: So many columns have room for their numbers.
WRITTEN = 12
#: Rows and columns of a picture at most; of more, every second, third, ... one is drawn.
DRAWN = 60


@dataclass(frozen=True)
class MatrixCell:
    """A cell as the template draws it; `shade` is a class of the style sheet."""

    shade: str
    text: str
    title: str


@dataclass(frozen=True)
class Matrix:
    """Numbers of pairs, all of them by one scale of colours.

    Attributes:
        id: unique on the page.
        title: of the picture.
        caption: how to read it.
        rows, columns: names; foreign text is fine.
        values: one list for each row, with a number for each column; None where it is undefined.
        texts: the same as hover labels show them; the numbers themselves unless given.
        ends: what the first and the last colour stand for; values beyond get these colours.
    """

    template: ClassVar[str] = "matrix.html.j2"
    id: str
    title: str
    caption: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    texts: Sequence[Sequence[str]] = ()
    ends: tuple[float, float] = (0.0, 1.0)

    @property
    def packed(self) -> bool:
        """Whether the cells have no room for their numbers."""
        return len(self.columns) > WRITTEN

    @property
    def across(self) -> list[int]:
        """The columns that are drawn."""
        return list(range(0, len(self.columns), _step(len(self.columns))))

    @property
    def left_out(self) -> str:
        """Which rows and columns are drawn, where these are not all."""
        step = max(_step(len(self.rows)), _step(len(self.columns)))
        return "" if step == 1 else f"Of many, one in {step} is drawn."

    @property
    def lines(self) -> list[tuple[int, str, list[MatrixCell]]]:
        """(number from 0, name, cells) of each row that is drawn."""
        step = _step(len(self.rows))
        return [
            (i, self.rows[i], [self._cell(i, j) for j in self.across])
            for i in range(0, len(self.rows), step)
        ]

    def _cell(self, i: int, j: int) -> MatrixCell:
        value = self.values[i][j]
        where = f"{self.rows[i]} and {self.columns[j]}"
        if value is None or not math.isfinite(value):
            return MatrixCell("unknown", "", f"{where}: undefined")
        low, high = self.ends
        place = min(max((value - low) / (high - low), 0.0), 1.0)
        shade = round((SHADES - 1) * place)
        text = f"{value:.2f}".replace("-", "\u2212")
        said = self.texts[i][j] if self.texts else text
        tone = "bright" if shade >= SHADES // 2 else "dim"
        return MatrixCell(f"shade-{shade} {tone}", text, f"{where}: {said}")


def _step(count: int) -> int:
    return -(-count // DRAWN) or 1
