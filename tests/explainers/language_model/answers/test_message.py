"""What an answer says, whatever its form; what it thinks is not what it says."""

from __future__ import annotations

import pytest

from polycode_plugins.explainers.language_model.answers.message import positions_of, text_of
from polycode_plugins.explainers.language_model.transport.failures import Unreadable


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": None, "refusal": "no"}}]},
        {"choices": [{"message": {"content": ""}, "finish_reason": "length"}]},
        {"choices": [{}]},
    ],
)
def test_answers_without_text(raw):
    with pytest.raises(Unreadable):
        text_of(raw)


@pytest.mark.parametrize(
    "logprobs",
    [
        {"tokens": ["a", "b"], "token_logprobs": [None], "top_logprobs": [None, {}]},
        {"tokens": ["a"], "token_logprobs": [0.5], "top_logprobs": [{}]},
        {"tokens": ["a"], "token_logprobs": ["x"], "top_logprobs": [{}]},
        {"tokens": ["a"], "token_logprobs": [float("nan")], "top_logprobs": [{}]},
        {"content": [{"token": "a"}]},
    ],
)
def test_lists_that_do_not_fit(logprobs):
    with pytest.raises(Unreadable, match="do not belong"):
        positions_of({"choices": [{"logprobs": logprobs}]})


def chat(content, finish="stop", **more):
    message = {"role": "assistant", "content": content, **more}
    return {"choices": [{"finish_reason": finish, "message": message}]}


def response(*items, status="completed", **more):
    return {"object": "response", "status": status, "output": list(items), **more}


SPOKEN = {"type": "message", "content": [{"type": "output_text", "text": "names"}]}


@pytest.mark.parametrize(
    "raw",
    [
        chat("names"),
        chat("names", None),
        chat("names", "STOP"),
        chat("names", "end_turn"),
        chat([{"type": "text", "text": "na"}, {"type": "text", "text": "mes"}]),
        chat([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "names"}]),
        chat([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "names"}]),
        chat({"type": "text", "text": "names"}),
        chat("names", reasoning_content="hm"),
        chat("names", tool_calls=[], function_call=None, refusal=None),
        chat("<think>hm</think>names"),
        chat("hm</think>names"),
        chat("<think>a</think> <think>b</think>names"),
        chat("[THINK]hm[/THINK]names"),
        chat("<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>names<|END_RESPONSE|>"),
        chat(
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
            "<|channel|>final<|message|>names<|return|>"
        ),
        {"choices": [{"text": "names", "finish_reason": "stop"}]},
        response({"type": "reasoning", "summary": []}, SPOKEN),
    ],
)
def test_the_same_answer_in_many_forms(raw):
    assert text_of(raw) == "names"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (chat("nam", "length"), "cut at its limit"),
        (chat("nam", "MAX_TOKENS"), "cut at its limit"),
        (chat("", "length", reasoning_content="hm"), "all its tokens before it answered"),
        (chat("<think>\nLet me", "length"), "all its tokens before it answered"),
        (chat("<think>\nLet me"), "all its tokens before it answered"),
        (chat(None, reasoning_content="names"), "thought and gave no answer"),
        (chat("<think>names</think>"), "thought and gave no answer"),
        (chat(None, "content_filter"), "filter"),
        (chat("nam", "content_filter"), "filter"),
        (chat("nam", "SAFETY"), "filter"),
        (chat("nam", "error"), "broke the answer off"),
        (chat("nam", "abort"), "broke the answer off"),
        (chat(None, refusal="I can't"), "refused"),
        (chat(None, "tool_calls", tool_calls=[{"id": "1"}]), "called a tool"),
        (chat(None), "no text"),
        (chat([]), "no text"),
        (chat([{"type": "image_url"}]), "no text"),
        (chat(7), "neither text nor a list"),
        (response(SPOKEN, status="incomplete"), "cut at its limit"),
        (
            response(
                {"type": "reasoning"},
                status="incomplete",
                incomplete_details={"reason": "max_output_tokens"},
            ),
            "all its tokens before it answered",
        ),
        (
            response(SPOKEN, status="incomplete", incomplete_details={"reason": "content_filter"}),
            "filter",
        ),
        (response({"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}),
         "refused"),
        (response({"type": "function_call", "name": "f"}), "called a tool"),
        (response(SPOKEN, status="failed"), "broke the answer off"),
    ],
)  # fmt: skip
def test_what_is_no_whole_answer(raw, reason):
    with pytest.raises(Unreadable, match=reason):
        text_of(raw)


def test_words_that_look_like_the_mark_of_a_thought_are_text():
    assert text_of(chat("tags such as <analysis> and <b>")) == "tags such as <analysis> and <b>"


def test_probabilities_after_sampling_are_read_as_well():
    top = [{"token": "1", "prob": 0.75}, {"token": "2", "prob": 0.25}, {"token": "3", "prob": 0.0}]
    listed = {"content": [{"token": "1", "prob": 0.75, "top_probs": top}]}
    [position] = positions_of({"choices": [{"text": "1", "logprobs": listed}]})
    assert position.top["2"] == pytest.approx(-1.386294)
    assert position.top["3"] < -600
