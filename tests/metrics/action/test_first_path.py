"""The first path is kept for the report, whoever saw it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from walks import path

from polycode_plugins.activations import Activations
from polycode_plugins.errors import StateError
from polycode_plugins.metrics import trajectories
from polycode_plugins.metrics.action import first_path as first_path_module
from polycode_plugins.metrics.action.first_path import FirstPath, _first_document


def kept(values, axes, rows, mask=None):
    found = FirstPath()
    found.update(Activations(values, axes, mask=mask, rows=rows))
    return found


def test_a_report_keeps_the_first_path_whoever_saw_it(monkeypatch):
    monkeypatch.setattr(first_path_module, "MAX_POINTS", 6)
    values, rows = torch.from_numpy(path(20, 5)), torch.arange(20)
    expected = trajectories(values[:6], 8).points
    parts = [kept(values[i], ("batch", "feature"), rows[i]) for i in (rows[3::2], rows[::2])]
    parts.append(kept(values[1:2], ("batch", "feature"), rows[1:2]))
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        total = FirstPath()
        for i in order:
            total.merge(parts[i])
        found = total.points()
        assert found is not None
        assert np.allclose(found, expected, rtol=1e-12)
        assert total.n_samples == 6
    assert parts[2].points() is None
    with pytest.raises(StateError, match="cannot be merged"):
        parts[0].merge(FirstPath(seed=1))
    with pytest.raises(StateError, match="damaged"):
        FirstPath().load_state({"counts": torch.tensor([6])})


def test_rows_without_a_number_go_on_after_a_resume():
    values = torch.from_numpy(path(9, 5))
    found = FirstPath()
    for part in values.split(2):
        resumed = found.fresh()
        resumed.load_state(found.state())
        found = resumed
        found.update(Activations(part, ("batch", "feature")))
    points = found.points()
    assert points is not None
    assert np.allclose(points, trajectories(values, 8).points)


def test_a_hole_in_the_rows_ends_the_path():
    values, mask = torch.from_numpy(path(9, 5)), torch.ones(9, dtype=torch.bool)
    mask[[0, 2, 6]] = False  # rows 3 to 5 are the first two in succession
    found = kept(values, ("batch", "feature"), torch.arange(9), mask).points()
    assert found is not None
    assert np.allclose(found, trajectories(values[3:6], 8).points)


def test_of_a_row_of_several_documents_the_first_that_counts_is_the_path():
    documents = torch.tensor([[7, 7, 7, 9, 9], [3, 5, 5, 5, 3]])
    values = torch.zeros(2, 5, 4)
    batch = Activations(values, ("batch", "position", "feature"), documents=documents)
    assert _first_document(batch, None).int().tolist() == [[1, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    mask = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 0, 1]], dtype=torch.bool)
    assert _first_document(batch, mask).int().tolist() == [[0, 0, 1, 0, 0], [0, 1, 1, 0, 0]]
    whole = Activations(values, ("batch", "position", "feature"), documents=documents[:, 0])
    assert _first_document(whole, mask) is mask
