"""Expected values from log-probabilities, aligned by index; a doubtful place is no answer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from polycode_plugins.explainers.base import LEVELS, Floats
from polycode_plugins.explainers.language_model.answers.message import Position
from polycode_plugins.explainers.language_model.answers.tables import ANOTHER, table
from polycode_plugins.explainers.language_model.prompts import UNKNOWN
from polycode_plugins.explainers.language_model.transport.failures import Unreadable

UNLISTED = 0.01  # an answer that can be at most so likely beside the other counts as none
MISALIGNED = "the log-probabilities do not belong to the tokens"
NO_NUMBER = "no number is among the likeliest tokens"
TWO_TOKENS = "the model writes a number and what is next to it as one token, or 10 as two"


def expected_value(top: Mapping[str, float], highest: int, before: str = "") -> float:
    """sum v p(v) / sum p(v) over the whole numbers 0..highest among the likeliest tokens.

    Args:
        top: natural log-probability of the likeliest tokens.
        highest: of the scale.
        before: what the tokens of numbers begin with there; after a tab nothing, so " 5" is none.

    Returns:
        The expectation on the scale 0-10.

    Raises:
        Unreadable: where no number is among them.
    """
    mass = total = 0.0
    for token, logprob in top.items():
        word = token.removeprefix(before)
        if not token.startswith(before):
            continue
        if word.isascii() and word.isdigit() and str(int(word)) == word and int(word) <= highest:
            p = math.exp(logprob)
            mass, total = mass + p, total + p * int(word)
    if not mass > 0:
        raise Unreadable(NO_NUMBER)
    return total / mass * LEVELS / highest


def at_unknown(positions: Sequence[Position], prompt: str, count: int, highest: int) -> Floats:
    """Expected values at the last `count` words "unknown" of an echoed prompt, [count].

    A word is found by the tab before it, not by counting characters: tokens that are half a
    character are echoed as something else, and some servers put a token before the prompt.
    """
    if not positions:
        raise Unreadable("there are no log-probabilities of the prompt")
    marker = f"\t{UNKNOWN}"
    starts: dict[int, int] = {}
    offset = 0
    for i, position in enumerate(positions):
        if position.token:
            starts[offset] = i
        offset += len(position.token)
    echoed = "".join(position.token for position in positions)
    if _plain(prompt) not in _plain(echoed):
        shorter = _plain(echoed).strip() and _plain(echoed) in _plain(prompt)
        raise Unreadable(MISALIGNED if shorter else ANOTHER)
    places = [match.start() + 1 for match in re.finditer(marker, echoed)]
    if len(places) != prompt.count(marker) or any(p not in starts for p in places):
        raise Unreadable(MISALIGNED)
    values = []
    for place in places[len(places) - count :]:
        top = positions[starts[place]].top
        if top is None:
            raise Unreadable("there are no log-probabilities of the prompt")
        values.append(expected_value(top, highest))
    return np.array(values, dtype=np.float64)


def _plain(text: str) -> str:
    """Without what a tokenizer may show otherwise: all but ASCII, the bytes of a broken letter."""
    return re.sub(r"[^\x20-\x7e\t\n]+", "", text)


def table_expected(
    positions: Sequence[Position],
    text: str,
    task: str,
    tokens: Sequence[str],
    highest: int = LEVELS,
) -> Floats:
    """Expected values at the numbers of a structured answer on the scale 0-`highest`, [tokens].

    Args:
        positions: of all that was generated, which may be more than the text: thought, a frame.
        text, task, tokens, highest: see `table`.
    """
    values = table(text, task, tokens, highest)
    if not positions:
        raise Unreadable("there are no log-probabilities of the answer")
    starts, begin = _starts(positions, text)
    if begin < 0:
        raise Unreadable(MISALIGNED)
    # A row ends with its number: the digits before each bracket that closes a row.
    ends = [begin + m.start(1) for m in re.finditer(r",\s*\"?(\d+)(?:\.0+)?\"?\s*\]", text.strip())]
    if len(ends) != len(tokens):
        raise Unreadable(MISALIGNED)
    found = []
    for place, value in zip(ends, values, strict=True):
        at = starts.get(place)
        if at is None or at.top is None:
            raise Unreadable(MISALIGNED)
        if at.token.strip() != str(int(value)):
            raise Unreadable(TWO_TOKENS)
        blanks = len(at.token) - len(at.token.lstrip())
        found.append(expected_value(at.top, highest, at.token[:blanks]))
    return np.array(found, dtype=np.float64)


def yes_probabilities(positions: Sequence[Position], text: str, count: int) -> list[float | None]:
    """p(1) / (p(0) + p(1)) at each 0 or 1 of a judge's list [count]; None where it is not known.

    Args:
        positions: of all that was generated.
        text: the answer, with the list at its end.
        count: answers.
    """
    unknown: list[float | None] = [None] * count
    starts, begin = _starts(positions, text)
    rows = re.findall(r"\[([^\[\]]*)\][^\[\]]*$", text.strip())
    if begin < 0 or not rows:
        return unknown
    places = [m.start() for m in re.finditer(r"[01]", rows[-1])]
    if len(places) != count:
        return unknown
    at = begin + text.strip().rfind(f"[{rows[-1]}]") + 1
    return [_yes_probability(starts.get(at + place)) for place in places]


def _yes_probability(position: Position | None) -> float | None:
    """p(1) / (p(0) + p(1)), written as the token is that was chosen; None where it is not known.

    What is not listed is at most as likely as the least of what is, and as all that is left.
    """
    if position is None or not position.top:
        return None
    blanks = position.token[: len(position.token) - len(position.token.lstrip())]
    listed = [position.top.get(f"{blanks}{answer}") for answer in (0, 1)]
    likelier = max((v for v in listed if v is not None), default=None)
    if likelier is None:
        return None
    every = [math.exp(v) for v in position.top.values()]
    most = max(0.0, min(*every, 1 - sum(every)))
    if None in listed and most > UNLISTED * math.exp(likelier):
        return None
    no, yes = (0.0 if v is None else math.exp(v - likelier) for v in listed)
    return yes / (no + yes)


def _starts(positions: Sequence[Position], text: str) -> tuple[dict[int, Position], int]:
    """Where tokens begin in what was written, blanks before them left out, and where `text` does.

    -1 where the tokens are not those of the text.
    """
    written = "".join(position.token for position in positions)
    starts: dict[int, Position] = {}
    offset = 0
    for position in positions:
        blanks = len(position.token) - len(position.token.lstrip())
        starts[offset + blanks] = position
        offset += len(position.token)
    return starts, written.rfind(text.strip())


def first_token(positions: Sequence[Position], highest: int) -> float:
    """The expected value at the one token that was generated, on the scale 0-10."""
    if len(positions) != 1 or positions[0].top is None:
        raise Unreadable("there are no log-probabilities of the answer")
    return expected_value(positions[0].top, highest)
