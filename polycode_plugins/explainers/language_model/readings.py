"""What an answer says of each token, aligned by index; anything doubtful is no answer.

All functions raise `Unreadable` with a reason instead of guessing, and none returns a zero for what
a model did not say.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polycode_plugins.explainers.base import LEVELS, Floats
from polycode_plugins.explainers.language_model.failures import Unreadable
from polycode_plugins.explainers.language_model.prompts import PREFIX, UNKNOWN
from polycode_plugins.explainers.language_model.request import Position

ANOTHER = "the answer belongs to another request"
MISALIGNED = "the log-probabilities do not belong to the tokens"
NO_NUMBER = "no number is among the likeliest tokens"


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


def table(text: str, task: str, tokens: Sequence[str]) -> Floats:
    """The whole numbers of a structured answer, [tokens].

    Every index must be there once and in order, and the tokens must be those that were asked about
    (half of them: models tidy odd tokens up).
    """
    rows = _rows(text, task, "activations", len(tokens))
    values, same = [], 0
    for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
        if not isinstance(row, list) or len(row) != 3 or _integer(row[0]) != i:
            raise Unreadable("the answer's rows are not [index, token, number] in order")
        same += str(row[1]).strip() == token.strip()
        value = _integer(row[2])
        if value is None or not 0 <= value <= LEVELS:
            raise Unreadable("the answer has something else than whole numbers from 0 to 10")
        values.append(value)
    if 2 * same < len(tokens):
        raise Unreadable(ANOTHER)
    return np.array(values, dtype=np.float64)


def table_expected(
    positions: Sequence[Position], text: str, task: str, tokens: Sequence[str]
) -> Floats:
    """Expected values at the numbers of a structured answer, [tokens]."""
    values = table(text, task, tokens)
    if not positions:
        raise Unreadable("there are no log-probabilities of the answer")
    if "".join(position.token for position in positions) != text:
        raise Unreadable(MISALIGNED)
    starts: dict[int, Position] = {}
    offset = 0
    for position in positions:
        blanks = len(position.token) - len(position.token.lstrip())
        starts[offset + blanks] = position
        offset += len(position.token)
    # A row ends with its number: the digits before each bracket that closes a row.
    ends = [m.start(1) for m in re.finditer(r",\s*(\d+)\s*\]", text)]
    if len(ends) != len(tokens):
        raise Unreadable(MISALIGNED)
    found = []
    for place, value in zip(ends, values, strict=True):
        at = starts.get(place)
        if at is None or at.top is None:
            raise Unreadable(MISALIGNED)
        if at.token.strip() != str(int(value)):
            raise Unreadable(
                "the model writes a number and what is next to it as one token, or 10 as two"
            )
        blanks = len(at.token) - len(at.token.lstrip())
        found.append(expected_value(at.top, LEVELS, at.token[:blanks]))
    return np.array(found, dtype=np.float64)


def verdicts(text: str, task: str, count: int) -> list[bool]:
    """The list of 0 and 1 of a judge."""
    answers = [_integer(v) for v in _rows(text, task, "answers", count)]
    if any(v not in (0, 1) for v in answers):
        raise Unreadable("the answer has something else than 0 and 1")
    return [v == 1 for v in answers]


def explanation(text: str) -> str:
    """The phrase of an explainer's answer, on one line, without the beginning it goes on from."""
    found = text.strip().partition("\n")[0].strip()
    found = re.sub(rf"^(unit \d+ )?{PREFIX}:?\s+", "", found, flags=re.IGNORECASE)
    found = found.strip(' "').removesuffix(".").strip(' "')
    if not re.search(r"\w", found):
        raise Unreadable("the explanation is empty")
    return found


def _rows(text: str, task: str, name: str, count: int) -> list[Any]:
    body = text.strip()
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", body, flags=re.DOTALL)
    try:
        answer = json.loads(fenced.group(1) if fenced else body)
    except ValueError as error:
        raise Unreadable("the answer is not JSON") from error
    if not isinstance(answer, dict) or not isinstance(answer.get(name), list):
        raise Unreadable(f"the answer has no list {name!r}")
    if answer.get("id") != task:
        raise Unreadable(ANOTHER)
    rows: list[Any] = answer[name]
    if len(rows) != count:
        raise Unreadable("the answer has too many or too few rows")
    return rows


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
