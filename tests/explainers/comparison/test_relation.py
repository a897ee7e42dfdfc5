"""Scores beside what metrics say of their layers."""

from __future__ import annotations

import dataclasses
import math
import types

import numpy as np
import pytest
from planted import toy

import polycode_plugins as pc
from polycode_plugins.errors import DataError
from polycode_plugins.explainers.comparison.relation import _matched


def test_scores_are_related_to_a_layers_spectrum():
    sites = [f"blocks.{i}.hook_resid_post" for i in range(4)]
    comparison = pc.compare(sites=sites, n_units=2, limit=120, judge=False, floors=())
    analysis = pc.analyze(sites=sites, limit=120)
    table = comparison.relation(analysis)
    row = table[(table.quantity == "spectrum.exponent") & (table.kind == "neuron")].iloc[0]
    exponents = [analysis[s, "spectrum"].exponent for s in sites]
    frame = comparison.to_dataframe()
    means = [frame[(frame.site == s) & (frame.kind == "neuron")].correlation.mean() for s in sites]
    ranks = [np.argsort(np.argsort(v)) for v in (exponents, means)]
    assert row.rho == pytest.approx(np.corrcoef(ranks)[0, 1])
    assert row.sites == 4
    with pytest.raises(DataError, match="analyse the sites that were compared"):
        toy().relation(analysis)


def related(exponents):
    """The row of a comparison whose scores rise with the layers, beside these exponents."""
    held = {
        site: types.SimpleNamespace(related=("exponent",), scalars=lambda v=v: {"exponent": v})
        for site, v in exponents.items()
    }

    class Analysed:
        metrics = ("spectrum",)
        results = held

        def __getitem__(self, key):
            return held[key[0]]

    unit = next(iter(toy()))
    units = []
    for i, site in enumerate(exponents):
        made = unit.evaluation
        scores = dataclasses.replace(
            made.scores, values={**made.scores.values, "correlation": 0.1 * i**2}
        )
        records = dataclasses.replace(made.records, site=site)
        made = dataclasses.replace(made, records=records, scores=scores)
        units.append(dataclasses.replace(unit, evaluation=made))
    comparison = dataclasses.replace(toy(), units=tuple(units), directions={})
    return comparison.relation(Analysed()).iloc[0]


@pytest.mark.parametrize("missing", [math.nan, math.inf])
def test_a_layer_whose_quantity_is_no_number_is_left_out_and_counted(missing):
    row = related({f"layer {i}": float(i) for i in range(6)} | {"layer 2": missing})
    assert row.rho == pytest.approx(1)
    assert (row.sites, row.left_out) == (5, 1)


def test_three_layers_say_nothing_of_a_rank_correlation_and_four_do():
    """Of three pairs one order in six is perfect by chance."""
    assert related({f"layer {i}": float(i) for i in range(3)}).rho is None
    assert related({f"layer {i}": float(i) for i in range(4)}).rho == pytest.approx(1)
    assert related({f"layer {i}": -float(i) for i in range(4)}).rho == pytest.approx(-1)


def test_what_is_the_same_at_every_layer_has_no_rank_correlation():
    assert related({f"layer {i}": 2.0 for i in range(5)}).rho is None


def test_a_layer_is_known_by_its_number_where_its_own_site_was_not_analysed():
    compared = [f"blocks.{i}.mlp.hook_post" for i in (0, 1, 10)]
    residual = [f"blocks.{i}.hook_resid_post" for i in (0, 1, 10)]
    assert _matched(compared, residual) == dict(zip(compared, residual, strict=True))
    assert _matched(compared, [*residual, compared[0]]) == {compared[0]: compared[0]}
    two = [*residual, "blocks.0.hook_resid_pre"]  # which of them is the layer?
    assert _matched(compared, two) == dict(zip(compared[1:], residual[1:], strict=True))
    assert _matched(["read"], ["write"]) == {}
