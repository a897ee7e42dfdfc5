"""The page of a comparison: complete, in order, and harmless whatever tokens hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from explanation_samples import ATTACKS, hostile_comparison, sample_comparison
from report_reading import faults, read

from polycode_plugins.report.heat import runs, visible


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
        assert "undefined" in row.text  # the constant's correlation
    assert {"shuffled", "empty", "constant", "token-lookup", "oracle"} <= {
        e.text for e in reading.all("button")
    }
    assert set(reading.figures()) == {"scores"}
    assert faults(page) == []


def test_failures_are_said_before_anything_else():
    comparison = sample_comparison()
    first, *rest = comparison.units
    failed = dataclasses.replace(
        first.evaluation,
        explanation=type(first.evaluation.explanation).failed("u", "e", "the budget is spent"),
    )
    from polycode_plugins.report.explanations import page_of
    from polycode_plugins.report.page import Warnings

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


def test_every_character_that_hides_is_shown():
    assert visible("a\u202eb\x1b[31m\n\ud800\u200b\u2028") == (
        "a\\u202eb\\x1b[31m↵\\ud800\\u200b\\u2028"
    )
    assert visible(" naïve 漢字 🙂") == " naïve 漢字 🙂"


def test_runs_join_what_is_not_coloured_and_keep_every_token():
    made = runs(["a", " b", " c", " d"], np.array([0.4, -0.9, 3.7, -20.0]))
    assert [(r.text, r.level) for r in made] == [("a b", 0), (" c", 3), (" d", -10)]
