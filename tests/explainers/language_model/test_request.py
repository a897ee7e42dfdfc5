"""Requests and the estimate of their tokens."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given, strategies

from polycode_plugins.explainers.language_model.failures import Unreadable
from polycode_plugins.explainers.language_model.request import (
    estimated_tokens,
    positions_of,
    text_of,
)


def test_the_estimate_of_tokens_is_of_the_right_size():
    text = "The unit fires 1234 times, at\tnumbers\t10\nand words like counterrevolutionary. " * 50
    # 18 words, numbers, marks and blanks a line, of which three are long enough to be split.
    assert 20 * 50 <= estimated_tokens(text) <= 26 * 50
    assert estimated_tokens("日本語") == 9  # a token for each byte is the worst that can be


@given(strategies.text(alphabet=string.printable + "é日\ud800\U0001f600", max_size=60))
def test_the_estimate_counts_what_it_says(text):
    pieces = re.compile(rb" ?[A-Za-z]{1,5}|[0-9]{1,3}|[ \t\n\r\x0b\x0c]+|.", re.DOTALL)
    assert estimated_tokens(text) == len(pieces.findall(text.encode(errors="surrogatepass")))


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
