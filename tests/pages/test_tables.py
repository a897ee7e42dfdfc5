"""Tables: one number of decimals, cut for paper, sorted by value."""

from __future__ import annotations

import math

from polycode_plugins.pages import tables


def cells(*values, **options) -> list[str]:
    return [c.text for c in tables.column("x", values, **options).cells]


def test_a_column_has_one_number_of_decimals_and_says_what_is_undefined():
    assert cells(0.5, 1.234, 10.06) == ["0.50", "1.23", "10.06"]
    assert cells(239.1, 1234.5) == ["239", "1,234"]
    assert cells(-0.25, None, math.nan, math.inf) == ["−0.250", *["undefined"] * 3]
    assert cells(1, 20_000, None) == ["1", "20,000", "undefined"]
    assert cells(2.5e-9, 0.0) == ["2.50 × 10⁻⁹", "0.00 × 10⁰"]
    assert cells(1.0, digits=3) == ["1.000"]
    assert cells(True, False, None) == ["yes", "no", "undefined"]
    assert cells("huber", "3") == ["huber", "3"]
    assert cells(None) == ["undefined"]


def test_a_wide_table_is_cut_for_paper_and_nothing_is_lost():
    columns = [tables.names("site", ["a", "b"])]
    columns += [tables.column(f"c{i}", [i, i]) for i in range(25)]
    sheets = tables.Table("t", "all", columns).sheets
    assert [len(s.columns) for s in sheets] == [11, 11, 6]
    assert [c for s in sheets for c in s.columns[1:]] == columns[1:]
    assert all(s.columns[0] is columns[0] for s in sheets)
    assert tables.Table("t", "all", columns[:11]).sheets == []


def test_what_says_least_is_hidden_at_first_but_not_a_column_or_two():
    columns = [tables.names("site", ["a", "b"])]
    columns += [tables.column(f"c{i}", [i, i]) for i in range(9)]
    assert tables.Table("t", "all", columns, leading=4).hidden == 6
    assert tables.Table("t", "all", columns, leading=8).hidden == 0
    assert tables.Table("t", "all", columns).hidden == 0


def test_long_tables_are_searched_and_scroll():
    def table(count):
        return tables.Table("t", "all", [tables.names("site", [str(i) for i in range(count)])])

    assert [(table(n).searched, table(n).tall) for n in (6, 20, 600)] == [
        (False, False),
        (True, False),
        (True, True),
    ]


def test_undefined_sorts_last_and_numbers_by_value():
    column = tables.column("x", [1e-3, None, 2.0])
    assert [c.sort for c in column.cells] == ["0.001", "", "2.0"]
    assert column.numeric


def test_a_unit_that_is_the_name_is_said_once():
    assert tables.titled("bits", {"bits": "bits"}, {}) == "bits"
    assert tables.titled("nats", {"nats": "nats"}, {"nats": "information"}) == "information (nats)"


def test_columns_share_the_paper_by_what_they_hold():
    columns = [tables.names("site", ["a.very.long.name.of.a.site"] * 2)]
    columns += [tables.column("wide heading", [1, 2]), tables.column("x", [100_000.0, 2.0])]
    # 18 letters of a name before it is broken, "heading", and "100,000", each with a gap of two.
    assert tables.Table("t", "all", columns).shares == [100 * n // 38 for n in (20, 9, 9)]
    assert sum(tables.Table("t", "all", columns).shares) <= 100


def test_a_table_is_cut_where_the_paper_ends_and_not_before():
    """Nine columns of 8 letters fill the paper beside a name, ten do not."""
    columns = [tables.names("site", ["a.very.long.name.of.a.site"])]
    columns += [tables.column(f"columns{i}", [0.5]) for i in range(12)]
    assert tables.Table("t", "all", columns[:10]).sheets == []
    assert [len(s.columns) for s in tables.Table("t", "all", columns[:11]).sheets] == [10, 2]
    # One that is wider than paper stands alone beside the names, rather than nowhere.
    long = tables.column("x" * 200, [0.5])
    cut = tables.Table("t", "all", [columns[0], long, columns[1]]).sheets
    assert [len(s.columns) for s in cut] == [2, 2]
