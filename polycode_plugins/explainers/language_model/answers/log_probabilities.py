"""Whether log-probabilities are what they claim: of these tokens, and probabilities at all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from polycode_plugins.explainers.language_model.answers.message import (
    Position,
    message_of,
    positions_of,
)
from polycode_plugins.explainers.language_model.transport.failures import Unreadable

#: "true"; "shifted": they belong to a neighbouring token; "chance": they say nothing; "absent".
Truth = Literal["true", "shifted", "chance", "absent"]
LIKELY = 0.2  # a token that a model has seen five times in the same place is at least this likely


def judge_generated(raw: dict[str, Any]) -> tuple[Truth, bool]:
    """Whether an answer at temperature 0 is what its log-probabilities say, and 10 one token."""
    try:
        found, text = positions_of(raw), message_of(raw).text
    except Unreadable:
        return "absent", True
    if not found or not any(p.top for p in found):
        return "absent", True
    words = [p.token.strip() for p in found]
    ten = not any(a == "1" and b == "0" for a, b in itertools.pairwise(words))
    if _plain(p.token for p in found) not in _plain([text]) and _plain([text]) not in _plain(
        p.token for p in found
    ):
        return "chance", ten
    differing = len({str(sorted((p.top or {}).items())) for p in found}) > 1
    return ("true" if differing and _consistent(found, greedy=True) else "chance"), ten


def judge_prompt(raw: dict[str, Any], text: str) -> Truth:
    """What the log-probabilities of an echoed prompt that repeats itself are worth."""
    try:
        found = positions_of(raw)
    except Unreadable:
        return "absent"
    if _plain([text]) not in _plain(p.token for p in found) or not any(p.top for p in found):
        return "absent"
    by_shift = {shift: _mean_probability(found, shift) for shift in (-1, 0, 1)}
    if by_shift[0] >= LIKELY and by_shift[0] > 2 * max(by_shift[-1], by_shift[1]):
        return "true" if _consistent(found) else "chance"
    if max(by_shift[-1], by_shift[1]) >= LIKELY:
        return "shifted"
    return "chance"


def agree(a: Mapping[str, float] | None, b: Mapping[str, float] | None) -> bool:
    """Whether two lists are of one distribution: the likeliest five, but for rounding."""
    if not a or not b:
        return False
    first = sorted(a, key=lambda token: -a[token])[:5]
    gaps = [abs(a[token] - b[token]) for token in first if token in b]
    return len(gaps) >= 3 and sum(gaps) / len(gaps) < 0.1


def _mean_probability(found: Sequence[Position], shift: int) -> float:
    """Of the token `shift` further on, over the second half, by the likeliest tokens listed."""
    half = range(len(found) // 2, len(found) - 2)
    values = [
        math.exp(top[token]) if (top := found[i].top) and (token := found[i + shift].token) in top
        else 0.0
        for i in half
    ]  # fmt: skip
    return sum(values) / max(1, len(values))


def _consistent(found: Sequence[Position], *, greedy: bool = False) -> bool:
    """Whether they can be probabilities of these tokens; and of the likeliest, if greedy."""
    good = total = 0
    for position in found:
        if position.logprob is None or not position.top:
            continue
        total += 1
        listed = position.top.get(position.token)
        good += (
            sum(math.exp(v) for v in position.top.values()) <= 1.01
            and (listed is None or abs(listed - position.logprob) < 0.02)
            and (not greedy or position.logprob >= max(position.top.values()) - 0.02)
        )
    return total > 0 and good >= 0.9 * total


def _plain(tokens: Iterable[str]) -> str:
    return "".join("".join(tokens).split())
