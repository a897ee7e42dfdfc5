"""Tables of results: numbers with digits that mean something, "undefined" where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

UNDEFINED = "undefined"
PAPER_COLUMNS = 11  # of a table that a printed page can hold
PAPER_CHARACTERS = 116  # beside each other, at the size of print, in a wide font
NAME_CHARACTERS = 18  # of a name or a sentence before it goes on in the next line
SEARCHED, TALL = 12, 24  # rows from which on a table is filtered, and scrolls within the page
Scalar = float | int | str | bool | None


@dataclass(frozen=True)
class Cell:
    """What a cell shows.

    Attributes:
        text: as it is shown.
        sort: by what its column is sorted; "" comes last either way.
        flag: whether it says that something is wrong.
    """

    text: str
    sort: str = ""
    flag: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: a few words.
        cells: one for each row.
        numeric: right-aligned and sorted by value.
        help: what the column means, in one sentence; shown under the table.
        name: whether it holds names of sites or units, which are set as code and may break.
        prose: whether it holds sentences, which go over several lines.
        exact: whether `sort` of its cells is the number in full, for a file.
    """

    title: str
    cells: Sequence[Cell]
    numeric: bool = False
    help: str = ""
    name: bool = False
    prose: bool = False
    exact: bool = False

    @property
    def breadth(self) -> int:
        """Characters it needs beside each other, with two for the gap to the next column."""
        cells = max((len(c.text) for c in self.cells), default=0)
        if self.name or self.prose:
            cells = min(cells, NAME_CHARACTERS)
        return 2 + max(cells, *map(len, self.title.split()), 1)


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
        id: unique on the page; letters, digits and hyphens. The file that it is saved as has it.
        caption: its heading.
        columns: what it holds.
        leading: so many columns are shown at first, where scripts run; all of them when 0.
    """

    template: ClassVar[str] = "table.html.j2"
    id: str
    caption: str
    columns: Sequence[Column]
    leading: int = 0

    @property
    def hidden(self) -> int:
        """Columns that are not shown at first. One or two would not be worth a click."""
        beyond = len(self.columns) - self.leading if self.leading else 0
        return beyond if beyond > 2 else 0

    @property
    def searched(self) -> bool:
        """Whether it is so long that its rows are filtered."""
        return len(self.columns[0].cells) > SEARCHED

    @property
    def tall(self) -> bool:
        """Whether it is so long that it scrolls within the page."""
        return len(self.columns[0].cells) > TALL

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        """The cells by row."""
        return list(zip(*(c.cells for c in self.columns), strict=True))

    @property
    def sheets(self) -> list[Table]:
        """The table in parts that fit on paper, each with the names; none where it fits whole."""
        first, *others = self.columns
        sheets, room = [[first]], PAPER_CHARACTERS - first.breadth
        for column in others:
            if len(sheets[-1]) > 1 and (len(sheets[-1]) == PAPER_COLUMNS or column.breadth > room):
                sheets.append([first])
                room = PAPER_CHARACTERS - first.breadth
            sheets[-1].append(column)
            room -= column.breadth
        return [Table("", self.caption, columns) for columns in sheets] if len(sheets) > 1 else []

    @property
    def shares(self) -> list[int]:
        """Percent of the paper's width that are each column's; in all at most 100."""
        return shared([c.breadth for c in self.columns])


def shared(breadths: Sequence[int]) -> list[int]:
    """Each breadth as whole percents of all, rounded down."""
    return [100 * breadth // sum(breadths) for breadth in breadths]


def names(title: str, values: Sequence[str]) -> Column:
    """A column of names."""
    return Column(title, [Cell(v, v) for v in values], name=True)


def column(
    title: str, values: Sequence[Scalar], *, digits: int | None = None, help: str = ""
) -> Column:
    """A column of values of one kind; numbers get as many decimals as their size calls for.

    Args:
        title: a few words.
        values: one for each row; None, NaN and infinities show as "undefined".
        digits: decimals, where the values' size is not to decide.
        help: what the column means.
    """
    known = [v for v in values if defined(v)]
    if any(isinstance(v, str | bool) for v in known):
        return Column(title, [_word(v) for v in values], help=help)
    numbers = [float(v) for v in known if v is not None]
    if any(isinstance(v, float) for v in known):
        show = decimals(numbers) if digits is None else (lambda v: f"{v:,.{digits}f}")
    else:
        show = lambda v: f"{int(v):,}"  # noqa: E731
    cells = [
        Cell(show(v).replace("-", "−"), repr(float(v)))
        if defined(v) and isinstance(v, float | int)
        else Cell(UNDEFINED)
        for v in values
    ]
    return Column(title, cells, numeric=True, help=help, exact=True)


def scalar_columns(
    rows: Sequence[Mapping[str, Scalar]],
    units: Mapping[str, str],
    names: Mapping[str, str],
    meanings: Mapping[str, str],
) -> list[Column]:
    """A column for each field of `Result.scalars()`, in order; what a row lacks is undefined."""
    fields = dict.fromkeys(field for row in rows for field in row)
    return [
        column(
            titled(field, units, names),
            [row.get(field) for row in rows],
            help=meanings.get(field, ""),
        )
        for field in fields
    ]


def titled(field: str, units: Mapping[str, str], names: Mapping[str, str]) -> str:
    """A field's name in words, with its unit where that is known and is not the name."""
    words = names.get(field, field.replace("_", " "))
    return words if units.get(field, words) == words else f"{words} ({units[field]})"


def defined(value: Scalar) -> bool:
    """Whether there is a value: not None, and no NaN or infinity."""
    return value is not None and (not isinstance(value, float) or math.isfinite(value))


def decimals(values: Sequence[float]) -> Callable[[float], str]:
    """A format that gives the typical one of `values` three significant digits.

    One number of decimals for the whole column, so that the points stand below each other;
    powers of ten where the values are beyond what decimals can show.
    """
    sizes = [abs(v) for v in values if v]
    if sizes and (max(sizes) >= 1e7 or median(sizes) < 1e-4):
        return _scientific
    places = 2 - math.floor(math.log10(median(sizes))) if sizes else 0
    return lambda v: f"{v:,.{min(max(places, 0), 6)}f}"


def _scientific(value: float) -> str:
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa} × 10{raised}"


def _word(value: Scalar) -> Cell:
    if not defined(value):
        return Cell(UNDEFINED)
    text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    return Cell(text, text)
