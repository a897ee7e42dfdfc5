"""Expected values are read at the right place, or not at all."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from tables_of import TOKENS, table

from polycode_plugins.explainers.language_model import prompts
from polycode_plugins.explainers.language_model.answers import expectations
from polycode_plugins.explainers.language_model.answers.message import Position
from polycode_plugins.explainers.language_model.transport.failures import Unreadable


def test_expected_value_by_hand():
    top = {"3": math.log(0.2), "5": math.log(0.2), "10": math.log(0.1), " 7": math.log(0.4)}
    assert expectations.expected_value(top, 10) == pytest.approx(
        (3 * 0.2 + 5 * 0.2 + 10 * 0.1) / 0.5
    )
    assert expectations.expected_value({"9": -1.0, "10": 0.0}, 9) == pytest.approx(10)  # 9 of 9
    assert expectations.expected_value(top, 10, " ") == pytest.approx(7)
    for no_number in ({}, {"x": -1.0}, {"11": -1.0}, {"05": -1.0}, {"٣": -1.0}, {"1.5": -1.0}):
        with pytest.raises(Unreadable, match="no number"):
            expectations.expected_value(no_number, 10)


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
    np.testing.assert_allclose(expectations.at_unknown(found, prompt, 4, 10), [7.0] * 4)
    before = [Position("<s>", None, None), *found, Position("!", -1.0, {"?": -1.0})]
    np.testing.assert_allclose(expectations.at_unknown(before, prompt, 4, 10), [7.0] * 4)
    broken = [Position("�" if p.token == "ü" else p.token, p.logprob, p.top) for p in found]
    np.testing.assert_allclose(expectations.at_unknown(broken, prompt, 4, 10), [7.0] * 4)


def test_doubtful_alignment_is_no_answer():
    prompt = prompts.simulate_text("x", TOKENS, top=10)
    with pytest.raises(Unreadable, match="do not belong"):
        expectations.at_unknown(echo(prompt)[:-9], prompt, 4, 10)
    with pytest.raises(Unreadable, match="do not belong"):  # a token begins before the word
        expectations.at_unknown(echo(prompt, split=4), prompt, 4, 10)
    with pytest.raises(Unreadable, match="another request"):
        expectations.at_unknown(echo(prompt.replace("weather", "seasons")), prompt, 4, 10)
    with pytest.raises(Unreadable, match="no log-probabilities"):
        expectations.at_unknown([], prompt, 4, 10)
    silent = [Position(p.token, p.logprob, None) for p in echo(prompt)]
    with pytest.raises(Unreadable, match="no log-probabilities"):
        expectations.at_unknown(silent, prompt, 4, 10)


def test_expected_values_of_a_table_come_from_its_own_numbers():
    text = table([0, 10, 3, 3], ("1, 2]", "x", "y", "z"))
    pieces, offsets = [], []
    for match in re.finditer(r"\d+|[^\d]", text):
        pieces.append(match.group())
        offsets.append(match.start())
    found = [Position(p, -0.1, {p: math.log(0.5), "5": math.log(0.5)}) for p in pieces]
    with pytest.raises(Unreadable, match="do not belong"):  # a token that looks like a row's end
        expectations.table_expected(found, text, "q", ("1, 2]", "x", "y", "z"))
    text = table([0, 10, 3, 3])
    pieces = re.findall(r"\d+|[^\d]", text)
    found = [Position(p, -0.1, {p: math.log(0.5), "5": math.log(0.5)}) for p in pieces]
    np.testing.assert_allclose(
        expectations.table_expected(found, text, "q", TOKENS), [2.5, 7.5, 4, 4]
    )
    thought = [Position(t, -0.1, {}) for t in "<think>hm, 7]</think>"]  # generated as well
    after = expectations.table_expected([*thought, *found], text, "q", TOKENS)
    np.testing.assert_allclose(after, [2.5, 7.5, 4, 4])
    digits = [Position(p, -0.1, {p: 0.0}) for p in text]  # 10 as two tokens
    with pytest.raises(Unreadable, match="10 as two"):
        expectations.table_expected(digits, text, "q", TOKENS)


def judged(*pieces):
    """Positions of an answer: a token, or a token with the probability of 1 beside 0."""
    made = []
    for piece in pieces:
        token, p = piece if isinstance(piece, tuple) else (piece, None)
        top = {token: 0.0} if p is None else {"1": math.log(p), "0": math.log(0.9 - p), "x": -3.0}
        made.append(Position(token, top[token], top))
    return made


def test_the_probability_of_yes_is_read_at_each_answer_of_a_judge():
    text = '{"id": "10", "answers": [0, 1]}'
    found = judged('{"id": "10", ', '"answers": [', ("0", 0.3), ", ", ("1", 0.6), "]}")
    assert expectations.yes_probabilities(found, text, 2) == pytest.approx([1 / 3, 2 / 3])
    begin = ('{"id": "10", ', '"answers": [')
    thought = judged("is it [1, 0]? ", *begin, ("0", 0.09), ", ", ("1", 0.45), "]}")
    assert expectations.yes_probabilities(thought, text, 2) == pytest.approx([0.1, 0.5])
    joined = judged('{"id": "10", ', '"answers": [', "0, 1", "]}")
    assert expectations.yes_probabilities(joined, text, 2) == [None, None]  # one token for both
    assert expectations.yes_probabilities(found, text, 3) == [None] * 3  # another number of answers
    assert expectations.yes_probabilities([], text, 2) == [None, None]
    other = '{"id": "10", "answers": [1, 0]}'
    assert expectations.yes_probabilities(found, other, 2) == [None, None]


@pytest.mark.parametrize(
    ("listed", "known"),
    [
        ({"1": 0.6, "0": 0.2, "x": 0.1}, 0.75),
        ({"1": 0.6, "x": 0.3, "y": 0.05}, None),  # no may be as likely as y
        ({"0": 0.6, "x": 0.3, "y": 0.05}, None),
        ({"1": 0.9, "x": 0.05, "y": 0.001}, 1.0),
        ({"0": 0.9, "x": 0.05, "y": 0.001}, 0.0),
        ({"1": 0.995}, 1.0),  # all that is left is less
        ({"1": 0.9}, None),
        ({"x": 0.9, "y": 0.05}, None),
        ({"1": 0.2, "0": 0.2, " 1": 0.5}, 0.5),  # a blank more is no answer here
        ({"1": 1e-300, "0": 3e-300, "x": 1.0}, 0.25),
    ],
)
def test_an_answer_that_is_not_listed_is_no_certainty(listed, known):
    top = {token: math.log(p) for token, p in listed.items()}
    for blank in ("", " "):
        answer = Position(f"{blank}1", -1.0, {f"{blank}{t}": v for t, v in top.items()})
        found = [Position('{"answers": [', None, None), answer, Position("]}", None, None)]
        text = f'{{"answers": [{blank}1]}}'
        assert expectations.yes_probabilities(found, text, 1) == [pytest.approx(known)]
