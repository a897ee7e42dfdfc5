"""Tables of dimensions and first directions: what stands in their cells."""

from __future__ import annotations

import numpy as np
import torch

from polycode_plugins.activations import Site
from polycode_plugins.metrics import Spectrum
from polycode_plugins.metrics.spectrum.dimension_tables import directions_table, measures_table
from polycode_plugins.pages.tables import Table


def cells(table: Table, title: str) -> list[str]:
    (found,) = [column for column in table.columns if column.title == title]
    return [cell.text for cell in found.cells]


def rows(n: int, width: int, far: int = 0) -> torch.Tensor:
    values = np.random.default_rng(n).standard_normal((n, width)) * np.arange(1, width + 1) ** -0.75
    values[:far, 0] += 60
    return torch.from_numpy(values)


def test_a_measure_has_its_interval_and_that_of_the_sample_or_is_undefined():
    enough, few = Spectrum(ranks=(1, None)).measure(rows(400, 30)), None
    few = Spectrum(ranks=(1, None)).measure(rows(30, 200))
    assert few.dimensions.effective_rank.value is None
    table = measures_table("x", [Site("a", 0), Site("b", 1)], [enough, few])
    one, two = cells(table, "effective rank")
    rank = enough.dimensions.effective_rank
    low, high = rank.interval
    assert one == f"{rank.value:,.4g} ({low:,.4g}–{high:,.4g}) / {rank.naive:,.4g}"
    assert two == f"undefined / {few.dimensions.effective_rank.naive:,.4g}"
    (column,) = [c for c in table.columns if c.title == "effective rank"]
    assert [bool(cell.sort) for cell in column.cells] == [True, False]


def test_a_direction_that_rules_has_its_rows_and_what_is_left_without_them():
    ruled, plain = Spectrum().measure(rows(2000, 30, far=5)), Spectrum().measure(rows(2000, 30))
    table = directions_table("x", [Site("a", 0), Site("b", 1)], [ruled, plain])
    assert cells(table, "rules") == ["yes", "no"]
    assert cells(table, "rows left out")[0] == "5"
    first, second = cells(table, "largest rows")
    assert first == "; ".join(map(str, ruled.first_direction.rows[:3]))
    assert second == "; ".join(map(str, plain.first_direction.rows[:3]))
    left = ruled.first_direction.remainder.dimensions
    assert float(cells(table, "effective rank without them")[0]) == np.round(
        left.effective_rank.value, len(cells(table, "effective rank without them")[0].split(".")[1])
    )
