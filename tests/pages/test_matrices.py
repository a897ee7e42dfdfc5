from __future__ import annotations

import math

from polycode_plugins.pages.matrices import DRAWN, Matrix
from polycode_plugins.pages.pages import Page, Section, render
from polycode_plugins.pages.palette import SHADES


def matrix(values, **options) -> Matrix:
    rows = [f"row {i}" for i in range(len(values))]
    columns = [f"column {i}" for i in range(len(values[0]))]
    return Matrix("m", "Title", "Caption.", rows, columns, values, **options)


def html(part: Matrix) -> str:
    return render(Page("t", "s", [Section("a", "A", [part])]))


def test_one_scale_holds_for_all_rows():
    lines = matrix([[0.0, 0.5], [1.0, 1.2], [-0.1, None], [math.nan, 0.25]]).lines
    shades = [[cell.shade.split()[0] for cell in cells] for _, _, cells in lines]
    top, half = f"shade-{SHADES - 1}", f"shade-{round((SHADES - 1) / 2)}"
    assert shades == [["shade-0", half], [top, top], ["shade-0", "unknown"], ["unknown", "shade-8"]]
    assert lines[2][2][0].text == "\u22120.10"
    assert lines[2][2][1].title == "row 2 and column 1: undefined"


def test_few_columns_have_their_numbers_and_hover_labels_what_is_given():
    page = html(matrix([[0.25, 0.5]], texts=[["0.25 (0.1 to 0.4)", "half"]]))
    assert ">0.25</span>" in page
    assert "row 0 and column 0: 0.25 (0.1 to 0.4)" in page
    assert "columns: 0 column 0, 1 column 1" in page


def test_of_many_some_are_drawn_and_it_is_said():
    big = matrix([[0.5] * 200 for _ in range(130)])
    assert big.packed
    assert len(big.across) <= DRAWN
    assert len(big.lines) <= DRAWN
    assert [number for number, _, _ in big.lines][:2] == [0, 3]
    page = html(big)
    assert "one in 4 is drawn" in page
    assert page.count("heatcell shade-") == len(big.across) * len(big.lines)
    assert "one in 1 is drawn" not in html(matrix([[0.5] * DRAWN for _ in range(DRAWN)]))


def test_foreign_names_are_text():
    part = Matrix("m", "<t>", "c", ["<b>r"], ["<b>r"], [[1.0]])
    page = html(part)
    assert "<b>r" not in page
    assert "<li>columns:" not in page
