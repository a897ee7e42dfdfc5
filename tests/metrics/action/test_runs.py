"""Ranges of rows that grow together, and what they keep."""

from __future__ import annotations

import pytest
import torch

from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics.action import runs as module
from polycode_plugins.metrics.action.runs import Runs


def row(number: int) -> torch.Tensor:
    return torch.full((2, 3), float(number))


def added(*ranges: tuple[int, int]) -> Runs:
    runs = Runs()
    for first, last in ranges:
        runs.join(first, last, row(first), row(last))
    return runs


def test_runs_that_touch_become_one_and_give_the_rows_between():
    runs = added((0, 3), (9, 9), (5, 6))
    assert [(a, b) for a, b, _, _ in runs] == [(0, 3), (5, 6), (9, 9)]
    assert runs.n_paths == 2 * 2  # two lanes; a single row is no path yet
    before, after = runs.join(4, 4, row(4), row(4))
    assert torch.equal(before, row(3))
    assert torch.equal(after, row(5))
    assert [(a, b) for a, b, _, _ in runs] == [(0, 6), (9, 9)]
    before, after = runs.join(8, 8, row(8), row(8))
    assert before is None
    assert torch.equal(after, row(9))
    _, last, head, tail = list(runs)[1]
    assert (last, head[0, 0], tail[0, 0]) == (9, 8, 9)
    for first, last in ((2, 2), (6, 7), (7, 8)):
        with pytest.raises(DataError, match="came twice"):
            runs.join(first, last, row(first), row(last))


def test_what_waits_is_counted_by_its_edges(monkeypatch):
    each = 2 * 3 * 4
    runs = added((0, 3), (5, 5), (9, 9))  # two edges, and one row each
    monkeypatch.setattr(module, "MAX_EDGE_BYTES", 4 * each)
    runs.check_size()
    monkeypatch.setattr(module, "MAX_EDGE_BYTES", 4 * each - 1)
    with pytest.raises(DataError, match="4 rows at the ends of 3 runs"):
        runs.check_size()
    Runs().check_size()


def test_states_come_back_and_those_that_cannot_be_are_refused():
    runs = added((0, 3), (5, 5))
    again = Runs.from_state(runs.state())
    assert [(a, b) for a, b, _, _ in again] == [(0, 3), (5, 5)]
    assert torch.equal(next(iter(again))[3], row(3))
    assert list(Runs.from_state({})) == []
    touching = runs.state() | {"runs": torch.tensor([[0, 4], [5, 5]])}
    backwards = runs.state() | {"runs": torch.tensor([[3, 0], [5, 5]])}
    for damage in (touching, backwards):
        with pytest.raises(StateError, match="touch"):
            Runs.from_state(damage)
