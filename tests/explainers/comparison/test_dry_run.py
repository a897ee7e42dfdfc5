"""A dry run counts and asks nothing."""

from __future__ import annotations

import dataclasses

from planted import NEURONS, planted_comparison

import polycode_plugins as pc
from polycode_plugins.explainers import (
    SimulationTask,
    TokenLookupExplainer,
)
from polycode_plugins.explainers.base import PaidExplainer
from polycode_plugins.explainers.comparison.dry_run import DryRun
from polycode_plugins.testing.explainers import planted
from polycode_plugins.testing.scripted import scripted_explainer


def test_a_dry_run_asks_nothing():
    class Costly(TokenLookupExplainer, PaidExplainer):
        def explain_many(self, units, *, seed=0):
            raise AssertionError("asked")

        def estimate(self, units, *, seed=0):
            return pc.explainers.Cost(requests=len(units))

    dry = DryRun(Costly())
    comparison = planted_comparison(explainer=dry)
    assert dry.cost.requests == len(comparison) == 2 * NEURONS
    assert all(u.score("correlation") is None for u in comparison)


def test_a_dry_run_counts_by_estimators_and_probes_nothing():
    class Estimating(TokenLookupExplainer, PaidExplainer):
        def estimate(self, units, *, seed=0):
            return pc.explainers.Cost()

        def simulator(self):
            raise AssertionError("probed")

        def estimators(self):
            class Counting(type(TokenLookupExplainer().simulator())):
                def estimate(self, tasks):
                    return pc.explainers.Cost(requests=sum(len(t.texts) for t in tasks))

            return Counting(), None

    dry = DryRun(Estimating())
    planted_comparison(explainer=dry, judge=False, floors=("shuffled", "empty", "oracle"))
    assert dry.cost.requests == 2 * NEURONS * 10 * 3  # the texts to score, and two floors of them


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
