"""What a backend really gives: found by asking for things whose answer is known.

That a field is there proves little. Servers are known that ignore `echo`, that return the prompt's
log-probabilities one token off, and that return numbers which say nothing. A text that repeats
itself tells them apart: from its second round on, every token is nearly certain, at its own
position and at no other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.remote import prompts
from polycode_plugins.explainers.remote.failures import RemoteError, Unreadable
from polycode_plugins.explainers.remote.request import (
    CHAT,
    COMPLETIONS,
    Position,
    Purpose,
    Request,
    positions_of,
    text_of,
)
from polycode_plugins.explainers.remote.session import Session

Truth = Literal["true", "shifted", "chance", "absent"]
Method = Literal["prompt-logprobs", "generated-logprobs", "token-by-token", "text"]
METHODS: tuple[Method, ...] = ("prompt-logprobs", "generated-logprobs", "token-by-token", "text")

ROUND = " list file value name object key"
ROUNDS = 6
LIKELY = 0.2  # a token that a model has seen five times in the same place is at least this likely
NUMBERS = "10, 9, 8, 10, 9, 8"


@dataclass(frozen=True)
class Capabilities:
    """What a backend gives for one model.

    Attributes:
        chat: whether it answers messages.
        completions: whether it goes on from a text.
        prompt_logprobs: of the prompt: "true"; "shifted" (they belong to a neighbouring token);
            "chance" (they say nothing); or "absent".
        generated_logprobs: of what it generates, in the endpoint used for answers.
        top: likeliest tokens it lists at most, of 20, 15 and 5; 0 where there are none.
        ten: whether it writes 10 as one token, as far as was seen; otherwise simulators that read
            the prompt use the scale 0-9.
        json_mode: whether it can be held to JSON.
        limit: the name of the field that limits an answer's length.
        temperature: whether it takes a temperature of 0.
    """

    chat: bool = False
    completions: bool = False
    prompt_logprobs: Truth = "absent"
    generated_logprobs: Truth = "absent"
    top: int = 0
    ten: bool = True
    json_mode: bool = False
    limit: str = "max_tokens"
    temperature: bool = True

    @property
    def method(self) -> Method:
        """The simulator that fits: from the prompt, from what is generated, or from text."""
        if self.prompt_logprobs == "true":
            return "prompt-logprobs"
        if self.generated_logprobs == "true":
            return "generated-logprobs" if self.chat else "token-by-token"
        if self.chat:
            return "text"
        raise RemoteError(
            "this backend has no chat and no log-probabilities that can be trusted (of the prompt: "
            f"{self.prompt_logprobs}, of answers: {self.generated_logprobs}), so it cannot "
            "simulate; use another server or model"
        )

    def fits(self, method: str) -> Method:
        """`method`, where this backend gives what it needs.

        Raises:
            DataError: for an unknown method.
            RemoteError: where it does not.
        """
        needs = {
            "prompt-logprobs": self.prompt_logprobs == "true",
            "generated-logprobs": self.generated_logprobs == "true" and self.chat,
            "token-by-token": self.generated_logprobs == "true" and self.completions,
            "text": self.chat,
        }
        for known in METHODS:
            if method == known and needs[known]:
                return known
        if method not in METHODS:
            raise DataError(f"no simulator is called {method!r}; use {', '.join(METHODS)}")
        able = [known for known in METHODS if needs[known]]
        raise RemoteError(
            f"this backend does not give what the simulator {method!r} needs (log-probabilities of "
            f"the prompt: {self.prompt_logprobs}, of answers: {self.generated_logprobs}, chat: "
            f"{'yes' if self.chat else 'no'}); it can serve {', '.join(able) or 'none'}"
        )

    def chat_body(
        self, model: str, messages: prompts.Messages, limit: int, *, temperature: float = 0.0
    ) -> dict[str, Any]:
        """The JSON of a chat request."""
        body: dict[str, Any] = {"model": model, "messages": messages, self.limit: limit}
        if self.temperature:
            body["temperature"] = temperature
        return body


def capabilities(session: Session, model: str, *, again: bool = False) -> Capabilities:
    """What the session's backend gives for `model`: remembered in its store, or probed now.

    Raises:
        RemoteError: where the model answers neither endpoint.
    """
    known = remembered(session, model)
    if known is not None and not again:
        return known
    found = probe(session, model)
    session.store.remember(_fact(session, model), asdict(found))
    return found


def remembered(session: Session, model: str) -> Capabilities | None:
    """What an earlier probe found, by the session's store."""
    known = session.store.fact(_fact(session, model))
    return None if known is None else Capabilities(**known)


def _fact(session: Session, model: str) -> str:
    return f"capabilities of {model} at {session.backend.identity}"


def probe(session: Session, model: str) -> Capabilities:
    """Ask for known things; about ten short requests.

    Raises:
        RemoteError: where the model answers neither endpoint.
    """
    found = _chat(session, model, Capabilities())
    found = _completions(session, model, found)
    if not found.chat and not found.completions:
        raise RemoteError(
            f"{session.backend.identity} answers neither chat nor completions for {model!r}; check "
            "the model's name and that the server works"
        )
    return found


# -- chat ------------------------------------------------------------------------------------------


def _chat(session: Session, model: str, caps: Capabilities) -> Capabilities:
    ask = [{"role": "user", "content": f"Repeat these numbers exactly: {NUMBERS}"}]
    for limit in ("max_tokens", "max_completion_tokens"):
        for temperature in (True, False):
            trial = replace(caps, limit=limit, temperature=temperature)
            if _ask(session, CHAT, trial.chat_body(model, ask, 32)) is None:
                continue
            caps = replace(trial, chat=True)
            break
        if caps.chat:
            break
    else:
        return caps
    task = [{"role": "user", "content": 'Answer with the JSON {"id": 1} and nothing else.'}]
    body = {**caps.chat_body(model, task, 32), "response_format": {"type": "json_object"}}
    caps = replace(caps, json_mode=_ask(session, CHAT, body) is not None)
    for top in (20, 15, 5):
        body = {**caps.chat_body(model, ask, 32), "logprobs": True, "top_logprobs": top}
        raw = _ask(session, CHAT, body)
        if raw is None:
            continue
        truth, ten = judge_generated(raw)
        return replace(caps, generated_logprobs=truth, top=top if truth == "true" else 0, ten=ten)
    return caps


def judge_generated(raw: dict[str, Any]) -> tuple[Truth, bool]:
    """Whether an answer at temperature 0 is what its log-probabilities say, and 10 one token."""
    try:
        found, text = positions_of(raw), text_of(raw)
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
    return ("true" if _consistent(found, greedy=True) else "chance"), ten


# -- completions -----------------------------------------------------------------------------------


def _completions(session: Session, model: str, caps: Capabilities) -> Capabilities:
    text = (ROUND * ROUNDS).strip()
    for top in (15, 5):
        # One token is generated since servers differ on none; it is not looked at.
        body = {"model": model, "prompt": text, "max_tokens": 1, "temperature": 0}
        raw = _ask(session, COMPLETIONS, {**body, "logprobs": top, "echo": True})
        if raw is not None:
            break
    else:
        plain = {"model": model, "prompt": text, "max_tokens": 1, "temperature": 0}
        return replace(caps, completions=_ask(session, COMPLETIONS, plain) is not None)
    caps = replace(caps, completions=True, prompt_logprobs=judge_prompt(raw, text))
    if caps.prompt_logprobs == "true":
        tens = {"model": model, "prompt": "\n\t10" * 8, "max_tokens": 1, "temperature": 0}
        shown = _ask(session, COMPLETIONS, {**tens, "logprobs": top, "echo": True})
        words = [p.token.strip() for p in positions_of(shown)] if shown is not None else []
        return replace(caps, top=top, ten="10" in words)
    if caps.chat:
        return caps
    cut, word = text.rpartition(" ")[0], text.rpartition(" ")[2]
    body = {"model": model, "prompt": cut, "max_tokens": 1, "temperature": 0, "logprobs": top}
    raw = _ask(session, COMPLETIONS, body)
    truth = judge_next(raw, word) if raw is not None else "absent"
    return replace(caps, generated_logprobs=truth, top=top if truth == "true" else 0)


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


def judge_next(raw: dict[str, Any], word: str) -> Truth:
    """What the log-probabilities of one generated token are worth, where `word` must follow."""
    try:
        found = positions_of(raw)
    except Unreadable:
        return "absent"
    if not found or not found[0].top:
        return "absent"
    p = sum(
        math.exp(v) for t, v in found[0].top.items() if t.strip() and word.startswith(t.strip())
    )
    return "true" if p >= LIKELY and _consistent(found[:1], greedy=True) else "chance"


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


def _plain(tokens: Any) -> str:
    return "".join("".join(tokens).split())


def _ask(session: Session, endpoint: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """The answer; None where the server refuses this request or lacks the endpoint."""
    purpose: Purpose = "probe"
    try:
        reply = session.ask([Request(endpoint, body, purpose, prompts.version())])[0]
    except RemoteError as error:
        if error.status == 404:
            return None
        raise
    if reply.raw is None and not reply.reason.startswith("the server refused"):
        raise RemoteError(
            f"{session.backend.identity} could not be probed: {reply.reason}; see that the server "
            "works and repeat the command"
        )
    return reply.raw
