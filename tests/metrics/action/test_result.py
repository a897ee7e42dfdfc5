"""The result, written and drawn."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
import torch
from action_walks import smooth

from polycode_plugins.activations import Site
from polycode_plugins.metrics import Action, ActionResult
from polycode_plugins.metrics.chapter import View


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


@pytest.mark.parametrize(
    ("halves", "said"),
    [
        ((0.02, 0.03, 0.05), "The action is known to within ±5.0% at every site (95%)."),
        (
            (0.02, 0.03, 1.4),
            "The action is known to within ±3.0% at half of the sites, and to no better than ±140% "
            "at c (95%).",
        ),
    ],
)
def test_how_well_the_action_is_known_is_said_of_most_sites_and_of_the_worst(halves, said):
    one = Action(projections=30).measure(smooth(20, 5))
    results = [
        replace(one, interval=(one.expected * (1 - h / 2), one.expected * (1 + h))) for h in halves
    ]
    sites = [Site(name, depth) for depth, name in enumerate("abc")]
    assert ActionResult.findings(View("m", "action", Action(), sites, results))[0].endswith(said)
