"""Explanations written by people: which unit each is of, and their scores by a model that reads."""

from __future__ import annotations

import csv
import json

import pytest
from planted import planted_comparison, toy, unit_of
from planted import record as planted_record

from polycode_plugins.errors import DataError
from polycode_plugins.explainers import TokenLookupExplainer, WrittenExplanations
from polycode_plugins.explainers.comparison.dry_run import DryRun
from polycode_plugins.explainers.written import MISSING
from polycode_plugins.testing.scripted import scripted_explainer


def unit(name="neuron 3", site="blocks.8.mlp.hook_post", kind="neuron", sign=1):
    made = unit_of([planted_record(["a"], [1.0], 1)], [planted_record(["b"], [1.0], 2)])
    return type(made)(name, site, kind, sign, "openai", made.explain, made.calibration, made.score)


def given(*rows):
    return WrittenExplanations(rows, by=scripted_explainer())


def test_right_explanations_score_high_and_wrong_ones_do_not(tmp_path):
    """Planted: neuron i fires on word i, and somebody has seen it of all but one neuron."""
    path = tmp_path / "people.jsonl"
    rows = [{"unit": f"neuron {i}", "explanation": f'the token "word{i}"'} for i in range(7)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    one = scripted_explainer()
    people = WrittenExplanations(path, by=one)
    right = planted_comparison(units="neuron", explainer=people)
    assert all(u.score("correlation") > 0.99 for u in right if u.name != "neuron 7")
    assert all(u.score("detection") >= 0.5 for u in right if u.name != "neuron 7")
    assert [u.evaluation.explanation.reason for u in right][7] == MISSING
    assert [u.evaluation.explanation.cost.requests for u in right] == [0] * 8
    assert all(u.evaluation.cost.requests > 0 for u in right if u.name != "neuron 7")
    assert right.run["explainer"]["explainer"] == "written"
    assert right.run["explainer"]["file"] == "people.jsonl"
    assert right.run["explainer"]["by"] == "openai"
    assert right.run["spent"]["run"]["requests"] > 0
    off = [{**row, "unit": f"neuron {i + 1}"} for i, row in enumerate(rows)]
    wrong = planted_comparison(units="neuron", explainer=WrittenExplanations(off, by=one))
    scores = [u.score("correlation") for u in wrong]
    assert all(s is None or abs(s) < 0.3 for s in scores)
    assert sum(s is not None for s in scores) > 3
    assert right.run["explainer"]["sha256"] != wrong.run["explainer"]["sha256"]
    dry = DryRun(WrittenExplanations(path, by=scripted_explainer()))
    planted_comparison(units="neuron", explainer=dry, floors=())
    sent = sum(u.evaluation.cost.requests for u in right)
    assert sent <= dry.cost.requests <= 1.2 * sent


@pytest.mark.parametrize(
    "row",
    [
        {"unit": "neuron 3"},
        {"unit": 3},
        {"index": "3", "layer": "8"},
        {"index": 3, "layer": 8},
        {"neuron": 3, "site": "blocks.8.mlp.hook_post", "kind": "neuron", "sign": "1"},
        {"index": "3", "layer": "8-res-jb"},
    ],
)
def test_how_a_unit_may_be_said(row):
    (made,) = given({**row, "description": " two\nlines "}).explain_many([unit()])
    assert (made.state, made.text) == ("ok", "two lines")


@pytest.mark.parametrize(
    "row",
    [
        {"unit": "neuron 33"},
        {"unit": 33},
        {"index": "3", "layer": "9"},
        {"index": "3", "layer": "8", "kind": "feature"},
        {"index": "3", "sign": -1},
        {"unit": 3, "site": "blocks.8.hook_resid_pre"},
    ],
)
def test_what_is_of_another_unit(row):
    people = given({**row, "text": "said"})
    (made,) = people.explain_many([unit()])
    assert (made.state, made.reason) == ("failed", "no explanation of it is written")
    assert people.warnings()[0] == "1 of 1 written explanations are of no unit of this run"


def test_what_may_be_of_two_is_refused():
    both = [unit(), unit("projection 3", kind="projection")]
    with pytest.raises(DataError, match=r"row 1 \('3'\) may be of neuron 3 or of projection 3"):
        given({"unit": 3, "text": "a"}).explain_many(both)
    with pytest.raises(DataError, match="rows 1 and 2 both explain neuron 3"):
        given({"unit": 3, "text": "a"}, {"unit": "neuron 3", "text": "b"}).explain_many([unit()])
    twice = given({"unit": 3, "text": "a"}, {"unit": "neuron 3", "text": "a"})
    assert twice.explain_many([unit()])[0].text == "a"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", "{", "cannot be read as explanations"),
        ("x.json", "{}", "holds one dict, not a list"),
        ("x.json", "[3]", "row 1 of the explanations is 3, not an object"),
        ("x.jsonl", '{"unit": 3}', "says no text; it needs one of explanation"),
        ("x.csv", "explanation\nsaid\n", "says no unit; it needs one of unit"),
        ("x.jsonl", '{"unit": 3, "text": "a", "sign": 2}', "has the sign '2'"),
        ("x.jsonl", "", "there is no explanation"),
        ("none.jsonl", None, "cannot be read"),
    ],
)
def test_files_that_say_no_explanation(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        WrittenExplanations(tmp_path / name, by=scripted_explainer())


def test_tables_and_what_export_writes(tmp_path):
    with open(tmp_path / "x.csv", "w", newline="") as file:
        csv.writer(file).writerows([["unit", "explanation"], ["3", 'a, "b"\nc'], ["5", "c"]])
    people = WrittenExplanations(tmp_path / "x.csv", by=scripted_explainer())
    assert people.explain_many([unit()])[0].text == 'a, "b" c'
    assert people.numbers() == [3, 5]
    path = toy().export(tmp_path / "x.jsonl")
    again = WrittenExplanations(path, by=scripted_explainer())
    records = [u.evaluation.records for u in toy()]
    texts = [u.evaluation.explanation.text for u in toy()]
    assert [e.text for e in again.explain_many(records)] == [" ".join(t.split()) for t in texts]


def test_a_simulator_that_reads_no_text_is_refused():
    with pytest.raises(DataError, match="reads its own tables and no text"):
        WrittenExplanations([], by=TokenLookupExplainer())
