"""What a backend really gives: found by asking for things whose answer is known.

That a field is there proves little. Servers are known that ignore `echo`, that return the prompt's
log-probabilities one token off, and that return numbers which say nothing. Two checks tell them
apart. A text that repeats itself: from its second round on, every token is nearly certain, at its
own position and at no other. And, for models too weak to see that: what the server says of a token
in the prompt must be what it says when it is asked to generate that token.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.language_model import prompts
from polycode_plugins.explainers.language_model.failures import RemoteError, Unreadable
from polycode_plugins.explainers.language_model.log_probabilities import (
    Truth,
    agree,
    judge_generated,
    judge_prompt,
)
from polycode_plugins.explainers.language_model.request import (
    CHAT,
    COMPLETIONS,
    Position,
    Purpose,
    Request,
    positions_of,
)
from polycode_plugins.explainers.language_model.session import Session

Ask = Callable[[str, dict[str, Any]], dict[str, Any] | None]
Method = Literal["prompt-logprobs", "generated-logprobs", "token-by-token", "text"]
METHODS: tuple[Method, ...] = ("prompt-logprobs", "generated-logprobs", "token-by-token", "text")

ROUND = " list file value name object key"
ROUNDS = 6
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
    found = probe(session, model, again=again)
    session.store.remember(_fact(session, model), asdict(found))
    return found


def remembered(session: Session, model: str) -> Capabilities | None:
    """What an earlier probe found, by the session's store."""
    known = session.store.fact(_fact(session, model))
    return None if known is None else Capabilities(**known)


def _fact(session: Session, model: str) -> str:
    return f"capabilities of {model} at {session.backend.identity}"


def probe(session: Session, model: str, *, again: bool = False) -> Capabilities:
    """Ask for known things; about ten short requests, sent anew where it is probed again.

    Raises:
        RemoteError: where the model answers neither endpoint.
    """
    number = int(session.store.fact("probes") or 0) + int(again)
    session.store.remember("probes", number)
    ask = functools.partial(_ask, session, number)
    found = _chat(ask, model, Capabilities())
    found = _completions(ask, model, found)
    if not found.chat and not found.completions:
        raise RemoteError(
            f"{session.backend.identity} answers neither chat nor completions for {model!r}; check "
            "the model's name and that the server works"
        )
    return found


# -- chat ------------------------------------------------------------------------------------------


def _chat(ask: Ask, model: str, caps: Capabilities) -> Capabilities:
    count = [{"role": "user", "content": f"Repeat these numbers exactly: {NUMBERS}"}]
    for limit in ("max_tokens", "max_completion_tokens"):
        for temperature in (True, False):
            trial = replace(caps, limit=limit, temperature=temperature)
            if ask(CHAT, trial.chat_body(model, count, 32)) is None:
                continue
            caps = replace(trial, chat=True)
            break
        if caps.chat:
            break
    else:
        return caps
    task = [{"role": "user", "content": 'Answer with the JSON {"id": 1} and nothing else.'}]
    body = {**caps.chat_body(model, task, 32), "response_format": {"type": "json_object"}}
    caps = replace(caps, json_mode=ask(CHAT, body) is not None)
    for top in (20, 15, 5):
        body = {**caps.chat_body(model, count, 32), "logprobs": True, "top_logprobs": top}
        raw = ask(CHAT, body)
        if raw is None:
            continue
        truth, ten = judge_generated(raw)
        return replace(caps, generated_logprobs=truth, top=top if truth == "true" else 0, ten=ten)
    return caps


# -- completions -----------------------------------------------------------------------------------


def _completions(ask: Ask, model: str, caps: Capabilities) -> Capabilities:
    text = (ROUND * ROUNDS).strip()
    for top in (15, 5):
        # One token is generated since servers differ on none; it is not looked at.
        body = {"model": model, "prompt": text, "max_tokens": 1, "temperature": 0}
        raw = ask(COMPLETIONS, {**body, "logprobs": top, "echo": True})
        if raw is not None:
            break
    else:
        plain = {"model": model, "prompt": text, "max_tokens": 1, "temperature": 0}
        return replace(caps, completions=ask(COMPLETIONS, plain) is not None)
    truth = judge_prompt(raw, text)
    if truth == "chance":
        truth = _cross_checked(ask, model, raw, text, top)
    caps = replace(caps, completions=True, prompt_logprobs=truth)
    if truth == "true":
        tens = {"model": model, "prompt": "\n\t10" * 8, "max_tokens": 1, "temperature": 0}
        shown = ask(COMPLETIONS, {**tens, "logprobs": top, "echo": True})
        words = [p.token.strip() for p in _positions(shown)]
        return replace(caps, top=top, ten="10" in words)
    if caps.chat:
        return caps
    body = {"model": model, "prompt": text, "max_tokens": 16, "temperature": 0, "logprobs": top}
    raw = ask(COMPLETIONS, body)
    truth = "absent" if raw is None else judge_generated(raw)[0]
    return replace(caps, generated_logprobs=truth, top=top if truth == "true" else 0)


def _cross_checked(ask: Ask, model: str, raw: dict[str, Any], text: str, top: int) -> Truth:
    """What the prompt's log-probabilities are worth beside those of generating the same tokens."""
    found = positions_of(raw)
    echoed = "".join(position.token for position in found)
    before = echoed.find(text)  # the length of what some servers put before the prompt
    agreeing = {-1: 0, 0: 0, 1: 0}
    places = [len(found) // 3, 2 * len(found) // 3]
    for place in places:
        cut = len("".join(position.token for position in found[:place])) - before
        body = {"model": model, "prompt": text[:cut], "max_tokens": 1, "temperature": 0}
        generated = ask(COMPLETIONS, {**body, "logprobs": top})
        said = _positions(generated)
        for shift in agreeing:
            agreeing[shift] += bool(said) and agree(said[-1].top, found[place + shift].top)
    if agreeing[0] == len(places) and not agreeing[-1] and not agreeing[1]:
        return "true"
    shifted = len(places) in (agreeing[-1], agreeing[1]) and not agreeing[0]
    return "shifted" if shifted else "chance"


def _positions(raw: dict[str, Any] | None) -> list[Position]:
    try:
        return [] if raw is None else positions_of(raw)
    except Unreadable:
        return []


def _ask(
    session: Session, number: int, endpoint: str, body: dict[str, Any]
) -> dict[str, Any] | None:
    """The answer; None where the server refuses this request or lacks the endpoint."""
    purpose: Purpose = "probe"
    try:
        reply = session.ask([Request(endpoint, body, purpose, prompts.version(), number)])[0]
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
