"""Answers are read exactly or not at all."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from polycode_plugins.explainers.language_model import prompts, readings
from polycode_plugins.explainers.language_model.failures import Unreadable
from polycode_plugins.explainers.language_model.request import Position

TOKENS = ("a", " b", "\n", " ü")


def test_expected_value_by_hand():
    top = {"3": math.log(0.2), "5": math.log(0.2), "10": math.log(0.1), " 7": math.log(0.4)}
    assert readings.expected_value(top, 10) == pytest.approx((3 * 0.2 + 5 * 0.2 + 10 * 0.1) / 0.5)
    assert readings.expected_value({"9": -1.0, "10": 0.0}, 9) == pytest.approx(10)  # 9 of 9
    assert readings.expected_value(top, 10, " ") == pytest.approx(7)
    for no_number in ({}, {"x": -1.0}, {"11": -1.0}, {"05": -1.0}, {"٣": -1.0}, {"1.5": -1.0}):
        with pytest.raises(Unreadable, match="no number"):
            readings.expected_value(no_number, 10)


def echo(prompt, *, split=1, value="7"):
    """Positions of `split` characters each; the first of the word holds the number `value`."""
    pieces = [prompt[i : i + split] for i in range(0, len(prompt), split)]
    offsets = np.cumsum([0, *map(len, pieces)])
    return [
        Position(t, -1.0, {value if prompt[o - 1 : o + 7] == "\tunknown" else "?": -0.1})
        for t, o in zip(pieces, offsets, strict=False)
    ]


def test_values_are_found_whatever_the_tokenizer_does():
    prompt = prompts.simulate_text("x", TOKENS, top=10)
    found = echo(prompt)
    np.testing.assert_allclose(readings.at_unknown(found, prompt, 4, 10), [7.0] * 4)
    before = [Position("<s>", None, None), *found, Position("!", -1.0, {"?": -1.0})]
    np.testing.assert_allclose(readings.at_unknown(before, prompt, 4, 10), [7.0] * 4)
    broken = [Position("�" if p.token == "ü" else p.token, p.logprob, p.top) for p in found]
    np.testing.assert_allclose(readings.at_unknown(broken, prompt, 4, 10), [7.0] * 4)


def test_doubtful_alignment_is_no_answer():
    prompt = prompts.simulate_text("x", TOKENS, top=10)
    with pytest.raises(Unreadable, match="do not belong"):
        readings.at_unknown(echo(prompt)[:-9], prompt, 4, 10)
    with pytest.raises(Unreadable, match="do not belong"):  # a token begins before the word
        readings.at_unknown(echo(prompt, split=4), prompt, 4, 10)
    with pytest.raises(Unreadable, match="another request"):
        readings.at_unknown(echo(prompt.replace("weather", "seasons")), prompt, 4, 10)
    with pytest.raises(Unreadable, match="no log-probabilities"):
        readings.at_unknown([], prompt, 4, 10)
    silent = [Position(p.token, p.logprob, None) for p in echo(prompt)]
    with pytest.raises(Unreadable, match="no log-probabilities"):
        readings.at_unknown(silent, prompt, 4, 10)


def table(values, tokens=TOKENS, **fields):
    rows = [[i, t, v] for i, (t, v) in enumerate(zip(tokens, values, strict=True))]
    return json.dumps({"id": "q", "activations": rows, **fields})


def test_a_table_is_read_and_a_fence_is_no_matter():
    np.testing.assert_array_equal(readings.table(table([0, 1, 10, 2]), "q", TOKENS), [0, 1, 10, 2])
    fenced = f"```json\n{table([0, 1, 10, 2])}\n```"
    np.testing.assert_array_equal(readings.table(fenced, "q", TOKENS), [0, 1, 10, 2])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("5 5 5 5", "is not JSON"),
        ("[1, 2]", "no list"),
        (table([0, 1, 2, 3], id="other"), "another request"),
        (table([0, 1, 2], TOKENS[:3]), "too many or too few"),
        (table([0, 1, 2, 11]), "whole numbers"),
        (table([0, 1, 2, -1]), "whole numbers"),
        (table([0, 1, 2, 3.5]), "whole numbers"),
        (table([0, 1, 2, True]), "whole numbers"),
        (table([0, 1, 2, None]), "whole numbers"),
        (table([0, 1, 2, 3], ("x", "y", "z", "w")), "another request"),
        (table([0, 1, 2, 3]).replace("[1,", "[2,"), "in order"),
    ],
)
def test_what_is_no_table(text, reason):
    with pytest.raises(Unreadable, match=reason):
        readings.table(text, "q", TOKENS)


def test_expected_values_of_a_table_come_from_its_own_numbers():
    text = table([0, 10, 3, 3], ("1, 2]", "x", "y", "z"))
    pieces, offsets = [], []
    for match in __import__("re").finditer(r"\d+|[^\d]", text):
        pieces.append(match.group())
        offsets.append(match.start())
    found = [Position(p, -0.1, {p: math.log(0.5), "5": math.log(0.5)}) for p in pieces]
    with pytest.raises(Unreadable, match="do not belong"):  # a token that looks like a row's end
        readings.table_expected(found, text, "q", ("1, 2]", "x", "y", "z"))
    text = table([0, 10, 3, 3])
    pieces = __import__("re").findall(r"\d+|[^\d]", text)
    found = [Position(p, -0.1, {p: math.log(0.5), "5": math.log(0.5)}) for p in pieces]
    np.testing.assert_allclose(readings.table_expected(found, text, "q", TOKENS), [2.5, 7.5, 4, 4])
    digits = [Position(p, -0.1, {p: 0.0}) for p in text]  # 10 as two tokens
    with pytest.raises(Unreadable, match="10 as two"):
        readings.table_expected(digits, text, "q", TOKENS)


@pytest.mark.parametrize(
    ("answer", "phrase"),
    [
        (" names of colours.\n\nUnit 5", "names of colours"),
        ("Unit 4 responds to names of colours.", "names of colours"),
        ('responds to: "names of colours".', "names of colours"),
    ],
)
def test_the_phrase_is_taken_from_an_explanation(answer, phrase):
    assert readings.explanation(answer) == phrase


@pytest.mark.parametrize("answer", ["", "...", "\n\n"])
def test_an_empty_explanation_is_none(answer):
    with pytest.raises(Unreadable, match="empty"):
        readings.explanation(answer)
