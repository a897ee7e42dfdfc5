"""What a unit's answers took after a run was stopped; what is never asked; keys in answers."""

from __future__ import annotations

import base64
import sqlite3
import zlib

import openai_rules as rules
import pytest
from openai_rules import CONCEPTS
from openai_server import KEY
from planted import planted_comparison
from planted_units import UNITS, planted

from polycode_plugins.explainers import MARSHALL_KIRCHNER, evaluate
from polycode_plugins.explainers.base import UnitRecords
from polycode_plugins.explainers.language_model.transport.budget import BudgetError
from polycode_plugins.explainers.language_model.transport.secrets import SHOWN
from polycode_plugins.explainers.records.protocols import split

PRICES = {"planted": {"in": 1000, "out": 2000}}


def costs(made):
    return [
        [(c.requests, c.prompt_tokens, c.completion_tokens) for c in (m.cost, m.explanation.cost)]
        for m in made
    ]


def test_costs_of_each_unit_survive_a_run_that_was_stopped(explainer, server):
    """Stopped by its budget after every few dollars, it counts as one that was not stopped."""
    whole = evaluate(UNITS, explainer("text", simulator="text", prices=PRICES))
    assert all(m.cost.requests > m.explanation.cost.requests > 0 for m in whole)
    server.seen.clear()
    stopped, made, budget = 0, None, 2.0
    first = explainer("text", simulator="text", prices=PRICES, budget=budget)
    path = first.store.path
    one = first
    while made is None:
        try:
            made = evaluate(UNITS, one)
        except BudgetError:
            stopped, budget = stopped + 1, budget + 15
            one.close()
            one = explainer("text", simulator="text", prices=PRICES, budget=budget, store=path)
    assert stopped >= 2
    assert set(server.seen.values()) == {1}
    assert costs(made) == costs(whole)
    one.close()
    again = explainer("text", simulator="text", prices=PRICES, store=path)
    assert costs(evaluate(UNITS, again)) == costs(whole)
    spent = again.spent()
    assert spent.answers + spent.failures == sum(server.seen.values())


def test_top_texts_alone_are_never_judged_for_detection(explainer, server):
    """A unit that fires in every text leaves nothing to detect: no request asks for it."""

    def top_only(unit: UnitRecords) -> UnitRecords:
        top = [*unit.explain.top, *unit.calibration.top, *unit.score.top]
        top.sort(key=lambda r: -float(r.activations.max()))
        return split(unit.unit, unit.site, unit.kind, 1, MARSHALL_KIRCHNER, top=top)

    units = [top_only(planted(c, seed, texts=10)) for seed, c in enumerate(CONCEPTS)]
    made = evaluate(units, explainer("text", simulator="text"), floors=())
    asked = [str(b["messages"][-1]["content"]) for b in server.bodies if "messages" in b]
    for m in made:
        assert m.scores.values["detection"] is None
        assert m.scores.reasons["detection"] == "the texts are all of one kind"
        assert m.scores.values["fuzzing"] is not None
    assert any('"task": "fuzzing"' in a for a in asked)
    assert not any('"task": "detection"' in a for a in asked)


@pytest.mark.parametrize("form", [KEY, KEY[:12], base64.b64encode(KEY.encode()).decode()])
@pytest.mark.parametrize("where", ["explanation", "simulation"])
def test_a_key_within_answers_is_in_no_file(explainer, server, tmp_path, monkeypatch, form, where):
    """Planted: a gateway that writes the key into what the model says, or beside it."""
    chat, explain = rules.chat, rules.explain
    said = {"explanation": f" and {form}", "simulation": ""}[where]
    beside = {"explanation": "", "simulation": f'"by": "{form}", '}[where]
    number = iter(range(10**6))  # no two explanations are one
    monkeypatch.setattr(rules, "explain", lambda p: f"{explain(p)} of kind {next(number)}{said}")
    monkeypatch.setattr(
        rules,
        "chat",
        lambda messages: chat(messages).replace('"activations"', f'{beside}"activations"'),
    )
    out = tmp_path / "run"
    one = explainer("text", simulator="text")
    made = planted_comparison(explainer=one, n_units=2, out=out, floors=())
    explanations = [u.evaluation.explanation for u in made]
    if where == "explanation":
        assert {e.reason for e in explanations} == {"the answer repeats the key"}
    else:
        assert {e.state for e in explanations} == {"ok"}
        assert all(u.evaluation.cost.requests > 5 for u in made)
    made.report(out / "report.html")
    made.export(out / "x.jsonl")
    made.export_features(out / "y.jsonl")
    assert not any(form in str(body) for body in server.bodies)
    assert any(f"Bearer {KEY}" in head for head in server.headers)
    one.close()
    stored = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(stored) > 6
    for path in stored:
        assert form.encode() not in path.read_bytes(), path
    with sqlite3.connect(one.store.path) as store:
        held = store.execute("SELECT answer FROM answers").fetchall()
    answers = [zlib.decompress(answer).decode() for (answer,) in held]
    assert answers
    assert not any(form in answer for answer in answers)
    assert any(SHOWN in answer for answer in answers) == (where == "simulation")
