"""Comparisons to report on: the embedded model's, and one in which every text is an attack."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np

import polycode_plugins as pc
from polycode_plugins.explainers import Explanation, Record, RecordSet, Simulation

ATTACKS = [
    "</script><script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title = 'owned'\">",
    "\u202egnirts",
    "\u2066isolate",
    "\x00\x1b[31m",
    "half\ud83d",
    "zero\u200bwidth",
    "<!--",
    "</style><b>bold</b>",
    "{{ 7 * 7 }}",
    "\\xe2\\x80",
]


@cache
def sample_comparison() -> pc.Comparison:
    """Three neurons and three projections of each of two layers."""
    sites = ["blocks.1.mlp.hook_post", "blocks.4.mlp.hook_post"]
    return pc.compare(sites=sites, n_units=3, limit=250)


@cache
def hostile_comparison() -> pc.Comparison:
    """The sample with attacks for tokens, explanations, units and sites."""
    sample = sample_comparison()
    return dataclasses.replace(
        sample, units=tuple(_hostile(unit, i) for i, unit in enumerate(sample))
    )


def _hostile(unit: pc.explainers.ComparedUnit, i: int) -> pc.explainers.ComparedUnit:
    attack, tokens = ATTACKS[i % len(ATTACKS)], tuple(ATTACKS)
    values = np.linspace(-3, 10, len(tokens)).astype(np.float32)

    def changed(records: RecordSet) -> RecordSet:
        return RecordSet(
            *(
                tuple(Record(tokens, values, attack, r.document, r.row) for r in group)
                for group in (records.top, records.random, records.quantile, records.negative)
            )
        )

    made = unit.evaluation
    records = dataclasses.replace(
        made.records,
        unit=attack,
        site=f"site {attack}",
        explain=changed(made.records.explain),
        calibration=changed(made.records.calibration),
        score=changed(made.records.score),
    )
    simulations = tuple(Simulation(values.astype(np.float64)) for _ in made.simulations)
    explanation = Explanation(attack, "<u>explainer</u>", f"fires on {attack}")
    evaluation = dataclasses.replace(
        made, records=records, simulations=simulations, explanation=explanation
    )
    return dataclasses.replace(unit, evaluation=evaluation)
