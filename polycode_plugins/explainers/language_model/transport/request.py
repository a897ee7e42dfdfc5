"""One request, and what it takes, in the shape of OpenAI's protocol whatever answers it."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Purpose = Literal["probe", "explain", "simulate", "judge"]
CHAT, COMPLETIONS, RESPONSES = "chat/completions", "completions", "responses"
#: The names under which servers know the limit of an answer's length.
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
MOST_TOKENS = 10_000_000  # no model reads or writes so many in one answer


def _whole(raw: Mapping[str, Any]) -> Any:
    return raw


@dataclass(frozen=True, eq=False)
class Request:
    """What is sent.

    Attributes:
        endpoint: "chat/completions", "completions" or "responses".
        body: the JSON that is sent.
        purpose: what it is for; the store counts by it.
        version: of the prompts (`prompts.version`).
        sample: tells repeated draws at a temperature above 0 apart.
        read: gives what an answer says; raises Unreadable where it does not say what was asked for.
    """

    endpoint: str
    body: Mapping[str, Any]
    purpose: Purpose
    version: str
    sample: int = 0
    read: Callable[[Mapping[str, Any]], Any] = _whole

    def key(self, backend: str) -> str:
        """The hash under which its answer is stored: of everything that decides the answer."""
        parts = [backend, self.endpoint, self.version, self.sample, self.body]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def model(self) -> str:
        """The model that is asked."""
        return str(self.body["model"])

    @property
    def most_out(self) -> int:
        """Tokens the answer may have at most, thought included."""
        return next((int(self.body[name]) for name in LIMITS if self.body.get(name)), 1)

    def estimated_in(self) -> int:
        """Tokens sent, as far as that can be known without the model's tokenizer."""
        if self.endpoint == COMPLETIONS:
            return estimated_tokens(str(self.body["prompt"]))
        messages = self.body["messages" if self.endpoint == CHAT else "input"]
        return sum(4 + estimated_tokens(str(m["content"])) for m in messages) + 3


_OTHER, _LETTER, _DIGIT, _BLANK = range(4)
_KINDS = np.zeros(256, dtype=np.uint8)
_KINDS[list(string.ascii_letters.encode())] = _LETTER
_KINDS[list(string.digits.encode())] = _DIGIT
_KINDS[list(string.whitespace.encode())] = _BLANK
_RUN = np.array([1, 5, 3, 1 << 30])  # how many of a kind in a row are one token


def estimated_tokens(text: str) -> int:
    """About how many tokens a byte-pair tokenizer of 50k or more makes of `text`, rather too many.

    One for each five letters of a word (with the space before it), three digits, mark of
    punctuation or run of blanks, and one for each byte of other scripts.
    """
    # Prompts are long and many: this takes a fraction of what a regular expression does.
    text_bytes = np.frombuffer(text.encode(errors="surrogatepass"), dtype=np.uint8)
    if not len(text_bytes):
        return 0
    kinds = _KINDS[text_bytes]
    changes = np.flatnonzero(kinds[1:] != kinds[:-1])
    bounds = np.zeros(len(changes) + 2, dtype=np.int64)
    bounds[1:-1] = changes + 1
    bounds[-1] = len(kinds)
    starts = bounds[:-1]
    lengths = bounds[1:] - starts
    kinds = kinds[starts]
    alone = (lengths == 1) & (text_bytes[starts] == ord(" "))
    joined = np.count_nonzero(alone[:-1] & (kinds[1:] == _LETTER))
    return int((-(-lengths // _RUN[kinds])).sum() - joined)


def usage_of(raw: Mapping[str, Any], request: Request) -> tuple[int, int, bool]:
    """Tokens sent, tokens received with those of thought, and whether this is a guess.

    It is one where the server says nothing, or a number that no model can have used.
    """
    usage = raw.get("usage")
    told = usage if isinstance(usage, Mapping) else {}
    sent = _count(told.get("prompt_tokens", told.get("input_tokens")))
    received = _count(told.get("completion_tokens", told.get("output_tokens")))
    if sent is None or received is None:
        return request.estimated_in(), request.most_out, True
    # Some count thought in the total alone.
    total = _count(told.get("total_tokens"))
    return sent, max(received, 0 if total is None else total - sent), False


def thought_tokens(raw: Mapping[str, Any]) -> int:
    """Tokens of thought, where the server counts them; otherwise 0."""
    usage = raw.get("usage")
    told = usage if isinstance(usage, Mapping) else {}
    for name in ("completion_tokens_details", "output_tokens_details"):
        details = told.get(name)
        if isinstance(details, Mapping):
            return _count(details.get("reasoning_tokens")) or 0
    return _count(told.get("reasoning_tokens")) or 0


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    whole = 0 <= value <= MOST_TOKENS and value == int(value)
    return int(value) if whole else None
