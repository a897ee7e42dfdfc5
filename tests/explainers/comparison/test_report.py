"""The page of a comparison: complete, in order, and harmless whatever tokens hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from explanation_samples import ATTACKS, hostile_comparison, sample_comparison
from report_reading import faults, read

from polycode_plugins.explainers.comparison.heat_texts import visible


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    return Path(sample_comparison().report(path)).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    return Path(hostile_comparison().report(path)).read_text(encoding="utf-8")


def test_every_unit_is_there_with_its_scores_floors_and_texts(page):
    comparison = sample_comparison()
    reading = read(page)
    rows = [e for e in reading.all("tr") if "tbody" in e.inside]
    units = [r for r in rows if "true" in r.text and "simulated" in r.text]
    assert len(units) == len(comparison)
    for row, unit in zip(units, comparison, strict=True):
        assert unit.name in row.text
        assert unit.evaluation.explanation.text in row.text
        assert f"{unit.score('correlation'):.3f}".replace("-", "−") in row.text
        oracle = unit.evaluation.floors["oracle"].values["correlation"]
        assert f"{oracle:.3f}" in row.text
    assert {"shuffled", "empty", "constant", "token-lookup", "oracle"} <= {
        e.text for e in reading.all("button")
    }
    assert "seed 0, distribution gaussian, norm 1.0" in reading.one("section", id="compared").text
    beside = reading.one("table", id="beside").text
    assert beside.count("undefined") >= 4  # the correlation of a constant, for each kind and site
    assert set(reading.figures()) == {"scores", "differences"}
    assert faults(page) == []


def test_failures_are_said_before_anything_else():
    comparison = sample_comparison()
    first, *rest = comparison.units
    failed = dataclasses.replace(
        first.evaluation,
        explanation=type(first.evaluation.explanation).failed("u", "e", "the budget is spent"),
    )
    from polycode_plugins.pages.pages import Warnings
    from polycode_plugins.report.comparison_page import page_of

    changed = dataclasses.replace(
        comparison, units=(dataclasses.replace(first, evaluation=failed), *rest)
    )
    (warnings,) = [p for p in page_of(changed).sections[0].parts if isinstance(p, Warnings)]
    assert warnings.sentences[0] == (
        f"1 of {len(comparison)} units have no explanation and no score: the budget is spent."
    )


def test_hostile_tokens_and_explanations_are_text(hostile):
    assert faults(hostile) == []
    reading = read(hostile)
    for attack in ATTACKS:
        assert any(visible(attack) in e.text for e in reading.all("p") + reading.all("summary"))
    assert not any(c in hostile for c in "\u202e\u2066\x00\x1b\u200b")


def test_each_kind_is_drawn_between_its_own_floor_and_ceiling(page):
    comparison = sample_comparison()
    traces = {t["name"]: t for t in read(page).figures()["scores"]["data"]}
    for kind, name in (("neuron", "neurons"), ("projection", "random projections")):
        for floor in ("token-lookup", "oracle"):
            drawn = traces[f"{floor} of {name}"]["y"]
            for site, y in zip(comparison.sites, drawn, strict=True):
                held = [
                    value
                    for u in comparison
                    if (u.site, u.kind) == (site, kind)
                    if (value := u.floor(floor, comparison.headline_scores[0])) is not None
                ]
                assert y == pytest.approx(np.mean(held), rel=1e-5)
