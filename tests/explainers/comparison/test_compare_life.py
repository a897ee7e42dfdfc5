"""How `compare` makes an explainer, where its answers lie, what a dry run counts, who closes it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest
from planted import planted_comparison

from polycode_plugins import plugins
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.explainers import SimulationTask, TokenLookupExplainer
from polycode_plugins.explainers.comparison.dry_run import DryRun
from polycode_plugins.testing.explainers import planted
from polycode_plugins.testing.scripted import scripted_explainer


def test_a_dry_run_takes_units_with_the_same_texts_for_two():
    explainer = scripted_explainer()
    dry = DryRun(explainer)
    one, *_ = planted()
    pair = [one, dataclasses.replace(one, unit="another")]
    explained = dry.explain_many(pair)
    tasks = [SimulationTask(e, (("a", " cat"),)) for e in explained]
    before = dry.cost.requests
    dry.simulator().simulate_many(tasks)
    assert dry.cost.requests - before == 2
    assert dry.dollars(dry.cost) is None
    explainer.close()


class Storing(TokenLookupExplainer):
    """Keeps the file it is told, and whether it is closed."""

    made: ClassVar[list[Storing]] = []

    def __init__(self, store="elsewhere", progress=True):
        self.store, self.progress, self.closed = store, progress, 0
        self.made.append(self)

    def close(self):
        self.closed += 1


@pytest.fixture
def storing(monkeypatch):
    load = plugins.load
    found = {("explainers", "storing"): Storing}
    monkeypatch.setattr(plugins, "load", lambda *n: found.get(n) or load(*n))


def test_a_named_explainer_lies_with_the_run_and_is_closed_whatever_happens(tmp_path, storing):
    planted_comparison(explainer="storing", out=tmp_path / "run", progress=False)
    first = Storing.made[-1]
    assert (first.store, first.progress) == (tmp_path / "run" / "answers.sqlite", False)
    assert first.closed == 1
    options = {"store": "mine"}
    planted_comparison(explainer="storing", out=tmp_path / "b", explainer_options=options)
    assert Storing.made[-1].store == "mine"
    with pytest.raises(DataError, match="neurons 0 to 7"):
        planted_comparison(explainer="storing", n_units=[99])
    assert Storing.made[-1].closed == 1
    assert Storing.made[-1].store == "elsewhere"  # there is no folder of a run
    given = Storing()
    planted_comparison(explainer=given)
    assert given.closed == 0


def test_a_finished_run_is_refused_before_an_explainer_is_made(tmp_path, storing):
    planted_comparison(out=tmp_path)
    made = len(Storing.made)
    with pytest.raises(StateError, match="holds a comparison"):
        planted_comparison(explainer="storing", out=tmp_path)
    assert len(Storing.made) == made
