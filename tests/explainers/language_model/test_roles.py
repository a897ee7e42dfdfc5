"""Explaining, simulating and judging by one model or by three, each with its own key."""

from __future__ import annotations

import json

import pytest
from canned_server import CannedServer, chat
from openai_server import KEY
from planted_units import UNITS

from polycode_plugins.explainers.base import JudgeTask
from polycode_plugins.explainers.language_model import OpenAIExplainer
from polycode_plugins.explainers.language_model.roles import Role, roles

FIRST = Role("large", "https://a.example/v1", "A_KEY")


def test_what_is_not_said_is_the_explaining_one():
    assert set(roles(FIRST, Role(), Role()).values()) == {FIRST}


def test_what_simulates_judges_too_and_the_other_way_round():
    by_simulator = roles(FIRST, Role("small"), Role())
    by_judge = roles(FIRST, Role(), Role("small"))
    assert by_simulator == by_judge
    assert by_judge["judge"] == Role("small", "https://a.example/v1", "A_KEY")
    three = roles(FIRST, Role("small"), Role("medium"))
    assert [r.model for r in three.values()] == ["large", "small", "medium"]


def test_a_key_goes_to_its_own_server_alone():
    moved = roles(FIRST, Role(url="https://b.example/v1"), Role("j", "https://a.example/v2"))
    assert moved["simulator"] == Role("large", "https://b.example/v1", "SIMULATOR_API_KEY")
    assert moved["judge"].key_variable == "A_KEY"  # the same server
    here = roles(FIRST, Role(url="local:folder"), Role())
    assert here["simulator"].model is None  # it has its own name


@pytest.fixture
def answer():
    """An honest server whose explanation is its own name."""

    def make(name):
        def reply(path, body, headers):
            last = body["messages"][-1]["content"] if "messages" in body else ""
            if not last:
                return 404, {}, b"{}"
            if "tokens" in last and last.startswith("{"):
                task = json.loads(last)
                rows = [[i, t, 9 * (t.strip() == "red")] for i, t in task["tokens"]]
                return 200, {}, chat(json.dumps({"id": task["id"], "activations": rows}))
            if last.startswith("{"):
                task = json.loads(last)
                answers = [1] * len(task["texts"])
                return 200, {}, chat(json.dumps({"id": task["id"], "answers": answers}))
            return 200, {}, chat(f"what {name} says")

        return reply

    return make


def test_three_servers_are_asked_for_their_own_work(tmp_path, monkeypatch, answer):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("JUDGE_API_KEY", "sk-of-the-judge-0123456789")
    with (
        CannedServer(answer("a")) as a,
        CannedServer(answer("b")) as b,
        CannedServer(answer("c")) as c,
    ):
        one = OpenAIExplainer(
            "explains", base_url=a.url, store=tmp_path / "s.sqlite",
            simulator_model="simulates", simulator_url=b.url,
            judge_model="judges", judge_url=c.url,
            reasoning_effort="low", body={"seed": 1}, judge_body={"seed": 2, "temperature": None},
        )  # fmt: skip
        explanation = one.explain(UNITS[0])
        assert explanation.text == "what a says"
        [found] = one.simulator().simulate(explanation, [(" red", " cow")])
        assert found.expected.tolist() == [9, 0]
        verdicts = one.judge().judge_many([JudgeTask(explanation, "detection", (("x",),))])
        assert verdicts[0][0].answer is True
        described = one.describe()
        one.close()
        sent = {name: [(b["model"], b.get("seed")) for _, b, _ in s.asked]
                for name, s in {"a": a, "b": b, "c": c}.items()}  # fmt: skip
        assert {m for m, _ in sent["a"]} == {"explains"}
        assert {m for m, _ in sent["b"]} == {"simulates"}
        assert set(sent["c"]) == {("judges", 2)}
        assert all("temperature" not in body for _, body, _ in c.asked)
        assert all(
            body["reasoning_effort"] == "low" for _, body, _ in a.asked if "messages" in body
        )
        keys = [{h.get("authorization") for *_, h in server.asked} for server in (a, b, c)]
        assert keys == [{f"Bearer {KEY}"}, {None}, {"Bearer sk-of-the-judge-0123456789"}]
    assert (described["model"], described["judge_model"]) == ("explains", "judges")
    assert described["backends"]["judge"] == c.url
