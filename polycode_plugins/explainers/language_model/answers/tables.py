"""What a structured answer says of each token or text; anything doubtful is no answer.

JSON may stand in a fence or between words, numbers may be written 7.0 or "7", rows as lists or
objects, and the id may be left out where the tokens tell what was answered. All functions raise
`Unreadable` with a reason instead of guessing, and none returns a zero for what was not said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from polycode_plugins.explainers.base import LEVELS, Floats
from polycode_plugins.explainers.language_model.transport.failures import Unreadable
from polycode_plugins.files.guards import whole_number

ANOTHER = "the answer belongs to another request"
_NUMBER = ("number", "activation", "level", "value", "score")
_TRAILING, _OPENING = re.compile(r",(\s*[\]}])"), re.compile(r"[\[{]")
_YES = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}


def table(text: str, task: str, tokens: Sequence[str], highest: int = LEVELS) -> Floats:
    """The whole numbers of a structured answer on the scale 0-`highest`, [tokens].

    Every index must be there once and in order, and the tokens must be those that were asked about
    (half of them, since models tidy odd tokens up; nearly all where the answer has no id).
    """
    rows, named = _rows(text, task, "activations", len(tokens))
    values, same = [], 0
    for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
        index, word, number = _fields(row)
        if index not in (None, i) or (index is None and word is None):
            raise Unreadable("the answer's rows are not [index, token, number] in order")
        same += word is not None and word.strip() == token.strip()
        value = _whole(number)
        if value is None or not 0 <= value <= highest:
            raise Unreadable(
                f"the answer has something else than whole numbers from 0 to {highest}"
            )
        values.append(value)
    if same < (0.5 if named else 0.9) * len(tokens):
        raise Unreadable(ANOTHER)
    return np.array(values, dtype=np.float64)


def verdicts(text: str, task: str, count: int) -> list[bool]:
    """The list of 0 and 1 of a judge."""
    rows, _ = _rows(text, task, "answers", count)
    answers = [_verdict(row) for row in rows]
    if None in answers:
        raise Unreadable("the answer has something else than 0 and 1")
    return [bool(answer) for answer in answers]


def _verdict(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    number = _whole(value)
    return _YES.get(str(value if number is None else number).strip().lower())


def _rows(text: str, task: str, name: str, count: int) -> tuple[list[Any], bool]:
    """The rows of the list called `name`, and whether the answer's id is there."""
    # Models leave commas before a bracket; a token may be one, so only where nothing else is there.
    every = list(_json_in(text))
    found = _objects(every, name) or _objects(_json_in(_TRAILING.sub(r"\1", text)), name)
    found = found or [{name: v} for v in every if isinstance(v, list) and len(v) == count]
    if not found:
        raise Unreadable(_lacking(text, name))
    # Of drafts and repetitions the one with the right id counts, and the last of those.
    right = [answer for answer in found if _is(answer.get("id"), task)]
    answer = (right or found)[-1]
    if answer.get("id") is not None and not right:
        raise Unreadable(ANOTHER)
    rows: list[Any] = answer[name]
    if len(rows) != count:
        raise Unreadable("the answer has too many or too few rows")
    return rows, bool(right)


def _objects(values: Iterable[Any], name: str) -> list[Mapping[str, Any]]:
    """The objects that hold the list."""
    return [v for v in values if isinstance(v, Mapping) and isinstance(v.get(name), list)]


def _json_in(text: str) -> Iterator[Any]:
    """The outermost JSON objects and lists in a text, one after the other."""
    decoder, at = json.JSONDecoder(), 0
    while (start := _OPENING.search(text, at)) is not None:
        try:
            value, at = decoder.raw_decode(text, start.start())
        except RecursionError:  # no answer is nested that deep, and what is inside hardly less
            return
        except ValueError:
            at = start.start() + 1
            continue
        yield value


def _lacking(text: str, name: str) -> str:
    whole = re.sub(r"^```\w*|```$", "", text.strip()).strip()
    try:
        json.loads(whole)
    except (ValueError, RecursionError):
        return "the answer is not JSON"
    return f"the answer has no list {name!r}"


def _is(said: Any, task: str) -> bool:
    """Whether an id is the task's, be it written as a number."""
    if said is None or isinstance(said, bool):
        return False
    text = str(said).strip()
    return text == task or (
        (number := whole_number(text)) is not None and number == whole_number(task)
    )


def _fields(row: Any) -> tuple[int | None, str | None, Any]:
    """Index, token and number of a row; None where a row does not say the first or the second."""
    if isinstance(row, Mapping):
        number = [row[name] for name in _NUMBER if name in row]
        word, index = row.get("token"), _whole(row.get("index", row.get("i")))
        if len(number) == 1:
            return index, word if isinstance(word, str) else None, number[0]
    if isinstance(row, list) and len(row) == 3 and (index := _whole(row[0])) is not None:
        return index, str(row[1]), row[2]
    if isinstance(row, list) and len(row) == 2 and isinstance(row[0], str):
        return None, row[0], row[1]
    raise Unreadable("the answer's rows are not [index, token, number] in order")


def _whole(value: Any) -> int | None:
    """A whole number, be it written 7.0 or "7"."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,9}(?:\.0*)?\s*", value, re.ASCII):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if abs(value) < 1e9 and value == int(value) else None
