"""Explainers that each break one promise: (check that has to fail, how)."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from polycode_plugins.explainers.base import Simulation
from polycode_plugins.explainers.lookup import TokenLookupExplainer, TokenLookupSimulator


class Reversing(TokenLookupExplainer):
    def explain_many(self, units, *, seed=0):
        return super().explain_many(units, seed=seed)[::-1]


class Counting(TokenLookupExplainer):
    calls = itertools.count()

    def explain_many(self, units, *, seed=0):
        found = super().explain_many(units, seed=seed)
        return [replace(e, text=f"{e.text} {next(self.calls)}") for e in found]


class Partial(TokenLookupExplainer):
    """Says more of neurons."""

    def explain_many(self, units, *, seed=0):
        found = super().explain_many(units, seed=seed)
        pairs = zip(units, found, strict=True)
        return [replace(e, data={**e.data, "n": 1}) if u.kind == "neuron" else e for u, e in pairs]


class Raising(TokenLookupExplainer):
    def explain_many(self, units, *, seed=0):
        if not all(u.maximum > 0 for u in units):
            raise ValueError("a silent unit")
        return super().explain_many(units, seed=seed)


class Peeking(TokenLookupExplainer):
    def explain_many(self, units, *, seed=0):
        seen = [u.score.all() for u in units]
        return super().explain_many(units, seed=seed) if seen else []


class Normalising(TokenLookupExplainer):
    """Scales the records it is shown, in place."""

    def explain_many(self, units, *, seed=0):
        found = super().explain_many(units, seed=seed)
        for unit in units:
            for record in unit.explain.all():
                record.activations[:] = record.activations / 2
        return found


class Wide(TokenLookupSimulator):
    def simulate_many(self, tasks):
        return [[Simulation(np.full(len(t), 11.0)) for t in task.texts] for task in tasks]


class OffScale(TokenLookupExplainer):
    def simulator(self):
        return Wide()


class Remembering(TokenLookupExplainer):
    """Its simulator works beside the explainer alone."""

    def __init__(self):
        self.seen = False

    def explain_many(self, units, *, seed=0):
        self.seen = True
        return super().explain_many(units, seed=seed)

    def simulator(self):
        return TokenLookupSimulator() if self.seen else Wide()


class Secretive(TokenLookupExplainer):
    def describe(self):
        return {"explainer": self.name, "backend": object()}


BROKEN = [
    ("answers_are_in_order", Reversing),
    ("equal_seeds_give_equal_answers", Counting),
    ("every_kind_has_one_schema", Partial),
    ("failures_are_states", Raising),
    ("scores_stay_unseen", Peeking),
    ("records_are_left_alone", Normalising),
    ("simulations_fit_their_texts", OffScale),
    ("simulations_read_explanations_alone", Remembering),
    ("descriptions_are_json", Secretive),
]
