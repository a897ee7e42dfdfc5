"""Models that think, models behind the Responses API, and fields that a user adds."""

from __future__ import annotations

import json

import pytest
from canned_server import CannedServer, chat, error
from planted_units import UNITS

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.base import Explanation
from polycode_plugins.explainers.language_model import OpenAIExplainer
from polycode_plugins.explainers.language_model.model import THOUGHT, Settings

EXPLANATION = Explanation("u", "openai", "names of colours")


def answered(messages) -> str:
    last = messages[-1]["content"]
    if last.startswith('{"id"'):
        task = json.loads(last)
        rows = [[i, t, 9 * (t.strip() == "red")] for i, t in task["tokens"]]
        return json.dumps({"id": task["id"], "activations": rows})
    return "10, 9, 8, 10, 9, 8" if "Repeat" in last else "words for sounds"


def thinking(path, body, headers):
    """Refuses max_tokens and temperature, and thinks for 900 tokens before it answers."""
    if not path.endswith("chat/completions"):
        return 404, {}, error("no such path")
    for name in ("max_tokens", "temperature", "top_p"):
        if name in body:
            return 400, {}, error(f"Unsupported parameter: '{name}' is not supported")
    if body["max_completion_tokens"] < 900:
        return 200, {}, chat("", "length", reasoning_content="hm")
    usage = {"prompt_tokens": 50, "completion_tokens": 920, "total_tokens": 970}
    usage["completion_tokens_details"] = {"reasoning_tokens": 900}
    return 200, {}, chat(answered(body["messages"]), usage=usage)


def responses(path, body, headers):
    """Knows the Responses API alone, and says so."""
    if path.endswith("chat/completions"):
        said = "This model is only supported in v1/responses and not in v1/chat/completions."
        return 404, {}, error(said)
    if not path.endswith("responses"):
        return 404, {}, error("no such path")
    part = {"type": "output_text", "text": answered(body["input"])}
    items = [{"type": "reasoning", "summary": []}, {"type": "message", "content": [part]}]
    answer = {"object": "response", "status": "completed", "output": items}
    answer["usage"] = {"input_tokens": 50, "output_tokens": 30}
    return 200, {}, json.dumps(answer).encode()


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def of(answer, **options):
        with CannedServer(answer) as server:
            one = OpenAIExplainer("m", base_url=server.url, store=tmp_path / "s.sqlite", **options)
            explanation = one.explain(UNITS[0])
            [found] = one.simulator().simulate(EXPLANATION, [(" red", " cow")])
            spent, caps, plan = one.spent(), one.capabilities(), one.estimate(UNITS)
            one.close()
            return explanation, found, caps, spent, plan, server.asked

    return of


def test_a_model_that_thinks_has_room_for_it_in_every_request(run):
    explanation, found, caps, spent, plan, asked = run(thinking)
    assert (explanation.text, found.expected.tolist()) == ("words for sounds", [9, 0])
    assert (caps.reasons, caps.temperature, caps.limit) == (True, False, "max_completion_tokens")
    assert asked[-1][1]["max_completion_tokens"] > THOUGHT
    assert explanation.cost.completion_tokens == 920  # thought is paid for
    assert spent.tokens_out >= 3 * 920
    assert plan.completion_tokens >= (THOUGHT + 1) * plan.requests > 0  # and planned for


def test_room_to_think_can_be_said(run):
    *_, plan, asked = run(thinking, thought_tokens=1000, explanation_tokens=50)
    assert plan.completion_tokens == 1050 * plan.requests
    assert asked[-1][1]["max_completion_tokens"] == 1000 + 64 + 16 * 2


def test_the_responses_api_where_there_is_no_chat(run):
    explanation, found, caps, _, _, asked = run(responses, reasoning_effort="low")
    assert (explanation.text, found.expected.tolist()) == ("words for sounds", [9, 0])
    assert (caps.chat, caps.responses, caps.reasons) == (True, True, True)
    last = asked[-1][1]
    assert last["reasoning"] == {"effort": "low"}
    assert last["store"] is False
    assert last["max_output_tokens"] > THOUGHT
    assert (explanation.cost.prompt_tokens, explanation.cost.completion_tokens) == (50, 30)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"body": [1]}, "is no JSON object"),
        ({"body": {"model": "x"}}, "may not set model"),
        ({"body": {"stream": True}}, "may not set stream"),
        ({"thought_tokens": -1}, "give 0 or more"),
    ],
)
def test_settings_that_cannot_be_used(settings, message):
    with pytest.raises(DataError, match=message):
        Settings(**settings)
