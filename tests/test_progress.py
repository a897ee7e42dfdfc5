"""Progress: lines without a terminal, with totals and the time left where these are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from polycode_plugins import progress
from polycode_plugins.data_options import DataOptions
from polycode_plugins.runs.passes import total_rows


def test_a_line_says_how_far_it_is_and_how_long_it_takes():
    lines = progress._Lines("streaming", "row", 4000, most=False)
    lines.update(1000)
    assert lines.line(20.0) == "streaming: 1,000 of 4,000 rows, 20 s, 1 min 0 s left"
    most = progress._Lines("streaming", "row", 4000, most=True)
    most.update(1000)
    assert most.line(20.0).endswith("of at most 4,000 rows, 20 s, at most 1 min 0 s left")
    unknown = progress._Lines("streaming", "row", None, most=False)
    unknown.update(3)
    assert unknown.line(7300.0) == "streaming: 3 rows, 2 h 1 min"


def test_lines_come_at_the_pause_and_once_at_the_end(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PAUSE", 0.0)
    with progress.bar("reading", "row", 2, True) as bar:
        bar.update()
        bar.update()
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in said] == [
        "reading: 1 of 2 rows",
        "reading: 2 of 2 rows",
        "reading: 2 of 2 rows",
    ]


@pytest.mark.parametrize("wanted", [False, None])
def test_nothing_is_said_where_nobody_asked_or_looks(wanted, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PAUSE", 0.0)
    with progress.bar("reading", "row", 2, wanted) as bar:
        bar.update(2)
    assert capsys.readouterr().err == ""


def test_totals_are_known_where_the_data_says_them():
    options = DataOptions()
    assert total_rows(torch.zeros(7, 2), options) == (7, False)
    assert total_rows(np.zeros((7, 2)), options) == (7, False)
    assert total_rows(DataLoader(TensorDataset(torch.zeros(9, 1)), 4), options) == (9, False)
    assert total_rows("a text", options) == (None, False)
    assert total_rows("a text", DataOptions(limit=5)) == (5, True)
    assert total_rows(torch.zeros(7, 2), DataOptions(limit=5, shard=(1, 2))) == (2, False)
