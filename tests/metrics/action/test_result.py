"""The result, written and drawn."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
import torch
from action_walks import smooth

from polycode_plugins.metrics import Action, ActionResult


@pytest.mark.parametrize("kind", ["path", "static"])
def test_results_round_trip_and_plot(kind):
    import matplotlib.pyplot as plt

    found = Action(kind=kind, projections=30).measure(torch.randn(2, 9, 4).double())
    again = ActionResult.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.to_dict() == found.to_dict()
    assert all(getattr(again, f.name) is not None or getattr(found, f.name) is None
               for f in fields(found))  # fmt: skip
    assert found.reading.endswith(".")
    ax = found.plot()
    assert "activation²" in ax.get_title() + ax.get_xlabel()
    assert bool(ax.collections) == (kind == "path") or kind == "static"
    ax.figure.canvas.draw()
    plt.close(ax.figure)


def test_one_dimension_is_drawn_against_time():
    import matplotlib.pyplot as plt

    ax = Action(dimensions=1).measure(smooth(20, 5)).plot()
    assert ax.get_xlabel() == "time step"
    assert ax.collections[-1].get_offsets()[:, 0].tolist() == list(range(20))
    plt.close(ax.figure)
