"""The explainer over a server: settings, keys, plans."""

from __future__ import annotations

import json
import logging

import pytest
from chat_requests import PRICES
from openai_server import KEY
from planted_units import UNITS

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.base import JudgeTask, SimulationTask
from polycode_plugins.explainers.comparison.dry_run import DryRun
from polycode_plugins.explainers.language_model import (
    OpenAIExplainer,
    RemoteError,
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 1}, "a budget needs prices"),
        ({"budget": -1, "prices": PRICES}, "dollars of at least 0"),
        ({"prices": {"plantd": PRICES["planted"]}}, "did you mean 'plantd'"),
        ({"prices": {"planted": {"in": "x", "out": 1}}}, "no prices 'in' and 'out'"),
        ({"prices": {"planted": {"in": -1, "out": 1}}}, "not a number of at least 0"),
        ({"prices": "/nowhere.json"}, "cannot be read"),
        ({"simulator": "promt"}, "no simulator is called"),
        ({"concurrency": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_be_used(explainer, options, message):
    with pytest.raises(DataError, match=message):
        explainer(**options)


def test_a_plan_sends_nothing_and_is_no_less_than_what_is_used(explainer, server):
    one = explainer("text", prices=PRICES, simulator="text")
    dry = DryRun(one)
    tasks = [
        SimulationTask(e, tuple(r.tokens for r in u.score.all()))
        for e, u in zip(dry.explain_many(UNITS), UNITS, strict=True)
    ]
    dry.simulator().simulate_many(tasks)
    assert not server.bodies
    count = len(UNITS) + sum(len(task.texts) for task in tasks)
    assert (dry.cost.requests, dry.cost.stored) == (count, 0)
    judged = [JudgeTask(t.explanation, "detection", t.texts) for t in tasks]
    assert one.estimators()[1].estimate(judged).requests == 2 * len(UNITS)
    explanations = one.explain_many(UNITS)
    one.simulator().simulate_many(
        [
            SimulationTask(e, tuple(r.tokens for r in u.score.all()))
            for e, u in zip(explanations, UNITS, strict=True)
        ]
    )
    spent = one.spent()
    assert spent.dollars <= one.dollars(dry.cost)
    assert spent.tokens_in <= dry.cost.prompt_tokens
    after = one.estimate(UNITS)
    assert (after.requests, after.stored) == (0, len(UNITS))


def test_the_key_is_nowhere(explainer, server, tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    one = explainer(prices=PRICES)
    one.explain_many(UNITS)
    one.simulator()
    with pytest.raises(RemoteError) as caught:
        explainer("401").explain(UNITS[0])
    shown = capsys.readouterr()
    said = [str(caught.value), repr(one.session.backend), json.dumps(one.describe()), caplog.text]
    said += [json.dumps(one.simulator().describe()), shown.out, shown.err]
    assert "[key removed]" in str(caught.value)
    assert not any(KEY in text for text in said)
    assert KEY in server.headers[-1]  # it was sent, so there was something to leak
    one.close()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


def test_openai_without_a_key_is_not_asked_but_can_be_planned(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    one = OpenAIExplainer(store=tmp_path / "answers.sqlite")
    assert one.estimate(UNITS).requests == len(UNITS)
    with pytest.raises(RemoteError, match="set the environment variable OPENAI_API_KEY"):
        one.simulator()
    assert one.spent().answers == 0
    one.close()


def test_the_explainer_sees_the_explaining_records_alone(explainer, server):
    explainer("text").explain(UNITS[1])
    sent = server.bodies[-1]["messages"][-1]["content"]
    shown = {r.tokens for r in UNITS[1].explain.all()}
    assert all("\n".join(f"{t}\t" for t in tokens[:1]) in sent for tokens in shown)
    lines = [line for line in sent.splitlines() if "\t" in line]
    total = sum(len(tokens) for tokens in shown)
    active = sum(int(v > 0) for r in UNITS[1].explain.all() for v in r.activations)
    assert len(lines) == total + active  # few are active, so those are listed again
    assert server.bodies[-1]["temperature"] == 1.0
    assert server.bodies[-1]["max_tokens"] == 120
