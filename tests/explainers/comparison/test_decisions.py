"""Basis or distribution: what the controls decide, on networks whose answer is known."""

from __future__ import annotations

import dataclasses
from functools import cache
from types import SimpleNamespace

import pytest

from benchmarks.basis_or_distribution import FEW, MANY, Case
from polycode_plugins.explainers.comparison.answer import answers
from polycode_plugins.explainers.comparison.contrasts import Contrast
from polycode_plugins.explainers.comparison.decisions import Decision, belongs, sentence


def contrast(low, high, overlap=0.8, disagreement=None):
    n, middle = (9, 9), (low + high) / 2
    return Contrast(
        "", "neuron", "rotated", "correlation", n, (0, 0), (0.5, 0.5), middle, (low, high), 0.01,
        overlap=overlap, disagreement=disagreement,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.02, 0.2, "basis"),
        (-0.02, 0.2, "undecided"),
        (-0.02, 0.03, "distribution"),
        (0.01, 0.03, "distribution"),  # told from 0, and as good as nothing
        (-0.03, 0.051, "undecided"),
        (-0.2, -0.02, "opposite"),
    ],
)
def test_what_is_said_goes_by_the_interval_and_by_what_is_negligible(low, high, said):
    made = contrast(low, high)
    assert belongs(made, "rotated") == belongs(made, "matched") == said
    apart = dataclasses.replace(made, overlap=0.1)
    assert belongs(apart, "matched") == belongs(apart, "covariance") == "incomparable"
    assert belongs(apart, "rotated") == said  # its distribution is what the basis makes of it
    assert belongs(dataclasses.replace(made, disagreement=0.01), "rotated") == "by site"
    assert belongs(dataclasses.replace(made, disagreement=0.2), "rotated") == said
    assert belongs(dataclasses.replace(made, interval=None), "rotated") == "undecided"


@cache
def planted(strength, rotated):
    """A comparison of neurons with what decides their basis, or with the other two controls."""
    controls = ("rotated",) if rotated else ("matched", "covariance")
    sort = {"nonlinear": rotated, "own": FEW if rotated else MANY}
    return Case(controls, strength, **sort).compared(3, 40)


@pytest.mark.parametrize("control", ["rotated", "matched", "covariance"])
def test_a_basis_that_matters_is_told_from_one_that_does_not(control):
    said = {s: planted(s, control == "rotated") for s in (0.0, 0.6)}
    none, real = ([d for d in said[s].decisions() if d.control == control][-1] for s in (0.0, 0.6))
    assert none.belongs in ("undecided", "distribution")
    assert real.belongs == "basis"
    assert real.contrast.pairs == (None if control == "covariance" else 40)
    assert "explainability belongs to the basis" in sentence(said[0.6], control, "correlation")
    named = {"rotated": "rotated neurons", "matched": "matched directions"}
    name = named.get(control, "directions of the covariance")
    assert any(name in line for line in answers(said[0.6]))


def told(*decisions):
    """A sentence of what was decided at sites, and over all last."""
    comparison = SimpleNamespace(decisions=lambda score: decisions, floors={})
    return sentence(comparison, "rotated", "correlation")


@pytest.mark.parametrize(
    ("said", "begins"),
    [
        ("basis", "By the rotated neurons explainability belongs to the basis"),
        ("distribution", "By the rotated neurons explainability belongs to the distribution"),
        ("opposite", "By the rotated neurons the basis of neurons is no help"),
        ("undecided", "The rotated neurons leave it open"),
        ("untold", "The rotated neurons decide nothing"),
    ],
)
def test_what_was_decided_is_a_sentence_with_its_size(said, begins):
    made = Decision("rotated", contrast(0.02, 0.2), said)
    other = Decision("matched", contrast(-9.0, 9.0), "undecided")
    sentence = told(made, other)
    assert sentence.startswith(begins)
    size = "0.110 (95% interval 0.020 to 0.200)"
    assert (size in sentence) is (said != "untold")
    bare = dataclasses.replace(made, contrast=dataclasses.replace(made.contrast, interval=None))
    few = dataclasses.replace(made, contrast=dataclasses.replace(made.contrast, difference=None))
    if said != "untold":
        assert "0.110, of too few units for an interval" in told(bare)
        assert "not known, of too few units" in told(few)


def test_sites_that_differ_are_named_with_what_each_says():
    sites = [
        Decision("rotated", dataclasses.replace(contrast(*ends), site=site), said)
        for site, ends, said in (
            ("a", (0.1, 0.3), "basis"),
            ("b", (-0.3, -0.1), "opposite"),
            ("c", (0.3, 0.5), "basis"),
        )
    ]
    said = told(*sites, Decision("rotated", contrast(-0.1, 0.2), "by site"))
    assert said == (
        "By the rotated neurons, the sites differ: the basis at a (0.200), c (0.400); explained "
        "better than neurons at b (\u22120.200)."
    )
