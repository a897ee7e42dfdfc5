"""One request and what its answer says, in the shape of OpenAI's protocol whatever answers it."""

from __future__ import annotations

import hashlib
import json
import math
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from polycode_plugins.explainers.language_model.failures import Unreadable

Purpose = Literal["probe", "explain", "simulate", "judge"]
CHAT, COMPLETIONS = "chat/completions", "completions"


@dataclass(frozen=True, eq=False)
class Request:
    """What is sent.

    Attributes:
        endpoint: "chat/completions" or "completions".
        body: the JSON that is sent.
        purpose: what it is for; the store counts by it.
        version: of the prompts (`prompts.version`).
        sample: tells repeated draws at a temperature above 0 apart.
    """

    endpoint: str
    body: Mapping[str, Any]
    purpose: Purpose
    version: str
    sample: int = 0

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
        """Tokens the answer may have at most."""
        return int(self.body.get("max_tokens") or self.body.get("max_completion_tokens") or 1)

    def estimated_in(self) -> int:
        """Tokens sent, as far as that can be known without the model's tokenizer."""
        if self.endpoint == COMPLETIONS:
            return estimated_tokens(str(self.body["prompt"]))
        return sum(4 + estimated_tokens(str(m["content"])) for m in self.body["messages"]) + 3


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
    # Prompts are long and many: this takes a sixth of what a regular expression does.
    text_bytes = np.frombuffer(text.encode(errors="surrogatepass"), dtype=np.uint8)
    if not len(text_bytes):
        return 0
    kinds = _KINDS[text_bytes]
    starts = np.concatenate([[0], np.flatnonzero(kinds[1:] != kinds[:-1]) + 1])
    lengths = np.diff(starts, append=len(kinds))
    kinds = kinds[starts]
    alone = (lengths == 1) & (text_bytes[starts] == ord(" "))
    joined = np.count_nonzero(alone[:-1] & (kinds[1:] == _LETTER))
    return int((-(-lengths // _RUN[kinds])).sum() - joined)


@dataclass(frozen=True)
class Position:
    """One token of an answer: its log-probability and those of the likeliest there (natural log).

    Both are None where the server gives none, as for the first token of a prompt.
    """

    token: str
    logprob: float | None
    top: Mapping[str, float] | None


def text_of(raw: Mapping[str, Any]) -> str:
    """The text that was answered.

    Raises:
        Unreadable: where there is none.
    """
    choice = _choice(raw)
    text = choice["message"].get("content") if "message" in choice else choice.get("text")
    if not isinstance(text, str):
        refusal = choice["message"].get("refusal") if "message" in choice else None
        raise Unreadable("the model refused" if refusal else "the answer has no text")
    if not text.strip() and choice.get("finish_reason") == "length":
        raise Unreadable("the model used all its tokens before it answered")
    return text


def positions_of(raw: Mapping[str, Any]) -> list[Position]:
    """The tokens with log-probabilities, of an echoed prompt too; empty where there are none.

    Raises:
        Unreadable: where the lists have different lengths or hold no numbers.
    """
    found = _choice(raw).get("logprobs")
    if not isinstance(found, Mapping):
        return []
    try:
        if isinstance(found.get("content"), list):
            return [
                Position(p["token"], _number(p["logprob"]), _top(p.get("top_logprobs")))
                for p in found["content"]
            ]
        tokens = found.get("tokens") or []
        tops = found.get("top_logprobs") or [None] * len(tokens)
        return [
            Position(str(token), _number(logprob), _top(top))
            for token, logprob, top in zip(tokens, found["token_logprobs"], tops, strict=True)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable("the log-probabilities do not belong to the tokens") from error


def usage_of(raw: Mapping[str, Any], request: Request) -> tuple[int, int, bool]:
    """Tokens sent, tokens received, and whether the server said nothing and this is a guess."""
    usage = raw.get("usage")
    told = usage if isinstance(usage, Mapping) else {}
    sent, received = told.get("prompt_tokens"), told.get("completion_tokens")
    if isinstance(sent, int) and isinstance(received, int) and min(sent, received) >= 0:
        return sent, received, False
    return request.estimated_in(), request.most_out, True


def _choice(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = raw.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise Unreadable("the answer has no choices")
    choice: Mapping[str, Any] = choices[0]
    if "message" in choice and not isinstance(choice["message"], Mapping):
        raise Unreadable("the answer has no message")
    return choice


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if math.isnan(number) or number > 1e-3:
        raise ValueError("not a log-probability")
    return number


def _top(value: Any) -> dict[str, float] | None:
    if value is None:
        return None
    pairs = (
        value.items() if isinstance(value, Mapping) else [(p["token"], p["logprob"]) for p in value]
    )
    return {str(token): float(_number(logprob) or 0.0) for token, logprob in pairs}
