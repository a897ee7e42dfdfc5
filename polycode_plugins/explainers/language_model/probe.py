"""What a backend really gives: found by asking for things whose answer is known.

That a field is there proves little. Servers are known that ignore `echo`, that return the prompt's
log-probabilities one token off, and that return numbers which say nothing. Two checks tell them
apart. A text that repeats itself: from its second round on, every token is nearly certain, at its
own position and at no other. And, for models too weak to see that: what the server says of a token
in the prompt must be what it says when it is asked to generate that token. A form that answers can
be held to is one that an answer to something else has.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from typing import Any

from polycode_plugins.explainers.language_model.answers.log_probabilities import (
    Truth,
    agree,
    judge_generated,
    judge_prompt,
)
from polycode_plugins.explainers.language_model.answers.message import (
    Message,
    Position,
    message_of,
    positions_of,
)
from polycode_plugins.explainers.language_model.capabilities import Capabilities
from polycode_plugins.explainers.language_model.model import THOUGHT, Model
from polycode_plugins.explainers.language_model.restrictions import (
    AFTER_THOUGHT,
    RESTRICTIONS,
    list_shape,
)
from polycode_plugins.explainers.language_model.transport.failures import RemoteError, Unreadable
from polycode_plugins.explainers.language_model.transport.request import Request
from polycode_plugins.explainers.language_model.transport.secrets import joined

ROUND = " list file value name object key"
ROUNDS = 6
NUMBERS = "10, 9, 8, 10, 9, 8"
FORMAT = 2  # of what is remembered; what an older version found is found again
_COUNT = [{"role": "user", "content": f"Repeat these numbers exactly: {NUMBERS}"}]
_TASK = [{"role": "user", "content": 'Answer with the JSON {"id": 1} and nothing else.'}]
_HELLO = [{"role": "user", "content": "Say hello."}]
_SHAPE = list_shape("q7", 3)


def capabilities(model: Model, *, again: bool = False) -> Capabilities:
    """What the model's backend gives: remembered in its store, or probed now.

    Raises:
        RemoteError: where the model answers no endpoint.
    """
    known = remembered(model)
    if known is not None and not again:
        return known
    found = probe(model, again=again)
    model.session.store.remember(_fact(model), asdict(found))
    return found


def remembered(model: Model) -> Capabilities | None:
    """What an earlier probe found, by the session's store."""
    known = model.session.store.fact(_fact(model))
    if known is None:
        return None
    names = {f.name for f in fields(Capabilities)}
    return Capabilities(**{name: value for name, value in known.items() if name in names})


def _fact(model: Model) -> str:
    where = f"{model.name} at {model.session.backend.identity}"
    return f"capabilities ({FORMAT}) of {where} {model.settings.name}".strip()


def probe(model: Model, *, again: bool = False) -> Capabilities:
    """Ask for known things; about twenty short requests, sent anew where it is probed again.

    Raises:
        RemoteError: where the model answers no endpoint.
    """
    store = model.session.store
    number = int(store.fact("probes") or 0) + int(again)
    store.remember("probes", number)
    asking = _Probe(replace(model, capabilities=Capabilities()), number)
    found = asking.found()
    if not found.chat and not found.completions:
        said = joined(asking.refusals)
        raise RemoteError(
            f"{model.session.backend.identity} answers neither chat nor completions for "
            f"{model.name!r}{f', it says: {said};' if said else ';'} check the model's name, "
            "base_url, and that the server works"
        )
    return found


class _Probe:
    """One probe: its requests, and what the server said of those that it refused."""

    def __init__(self, model: Model, number: int) -> None:
        self.model, self.number = model, number
        self.refusals: list[str] = []

    def found(self) -> Capabilities:
        """What the backend gives."""
        model = self._speaking(self.model)
        if model.capabilities.chat:
            model = self._restricted(model)
            model = self._with_logprobs(model)
        return self._completions(model).capabilities

    # -- chat --------------------------------------------------------------------------------------

    def _speaking(self, model: Model) -> Model:
        """How the model takes messages; without chat where it takes none."""
        for responses in (False, True):
            limits = ("max_output_tokens",) if responses else _LIMITS
            for limit in limits:
                for temperature in (True, False):
                    trial = model.knowing(
                        chat=True, responses=responses, limit=limit, temperature=temperature
                    )
                    raw = self._ask(self._chat(trial, _COUNT))
                    if raw is None:
                        continue
                    message = _message(raw)
                    if message is None:
                        continue
                    cut = not message.text.strip() and message.finish in ("length", _CUT)
                    return trial.knowing(reasons=message.thought or message.open or cut)
        return model

    def _restricted(self, model: Model) -> Model:
        """What holds its answers to a form: an answer to something else has it."""
        backend = model.session.backend
        every = getattr(backend, "restrictions", RESTRICTIONS)
        for kind in AFTER_THOUGHT if model.capabilities.reasons else every:
            if model.capabilities.responses and kind not in AFTER_THOUGHT:
                continue
            trial = model.knowing(restriction=kind)
            # JSON without a form needs the word, or some servers refuse.
            messages = _TASK if kind == "json" else _HELLO
            room = THOUGHT if model.capabilities.reasons else 0
            raw = self._ask(self._chat(trial, messages, limit=96 + room, shape=True))
            message = None if raw is None else _message(raw)
            if message is not None and (_is_json(message.text, kind)):
                return trial
        return model

    def _with_logprobs(self, model: Model) -> Model:
        if model.capabilities.responses:
            return model  # its log-probabilities need fields that few servers know
        for top in (20, 15, 5):
            raw = self._ask(self._chat(model, _COUNT, top=top))
            if raw is None:
                continue
            truth, ten = judge_generated(raw)
            listed = top if truth == "true" else 0
            return model.knowing(generated_logprobs=truth, top=listed, ten=ten)
        return model

    def _chat(
        self,
        model: Model,
        messages: list[dict[str, str]],
        *,
        limit: int = 32,
        top: int = 0,
        shape: bool = False,
    ) -> Request:
        limit += THOUGHT if model.capabilities.reasons and limit == 32 else 0
        given = _SHAPE if shape else None
        bare = replace(model, settings=replace(model.settings, thought_tokens=0))
        return bare.chat(messages, limit, "probe", _raw, shape=given, top=top, sample=self.number)

    # -- completions -------------------------------------------------------------------------------

    def _completions(self, model: Model) -> Model:
        text = (ROUND * ROUNDS).strip()
        for top in (15, 5):
            # One token is generated since servers differ on none; it is not looked at.
            raw = self._complete(model, text, logprobs=top, echo=True)
            if raw is not None:
                break
        else:
            return model.knowing(completions=self._complete(model, text) is not None)
        truth = judge_prompt(raw, text)
        if truth == "chance":
            truth = self._cross_checked(model, raw, text, top)
        model = model.knowing(completions=True, prompt_logprobs=truth, bias=self._biased(model))
        if truth == "true":
            shown = self._complete(model, "\n\t10" * 8, logprobs=top, echo=True)
            words = [p.token.strip() for p in _positions(shown)]
            return model.knowing(top=top, ten="10" in words)
        if model.capabilities.chat:
            return model
        raw = self._complete(model, text, limit=16, logprobs=top)
        truth, ten = ("absent", True) if raw is None else judge_generated(raw)
        listed = top if truth == "true" else 0
        return model.knowing(generated_logprobs=truth, top=listed, ten=ten)

    def _cross_checked(self, model: Model, raw: dict[str, Any], text: str, top: int) -> Truth:
        """What the prompt's log-probabilities are worth beside those of generating its tokens."""
        found = positions_of(raw)
        echoed = "".join(position.token for position in found)
        before = echoed.find(text)  # the length of what some servers put before the prompt
        agreeing = {-1: 0, 0: 0, 1: 0}
        places = [len(found) // 3, 2 * len(found) // 3]
        for place in places:
            cut = len("".join(position.token for position in found[:place])) - before
            said = _positions(self._complete(model, text[:cut], logprobs=top))
            for shift in agreeing:
                agreeing[shift] += bool(said) and agree(said[-1].top, found[place + shift].top)
        if agreeing[0] == len(places) and not agreeing[-1] and not agreeing[1]:
            return "true"
        shifted = len(places) in (agreeing[-1], agreeing[1]) and not agreeing[0]
        return "shifted" if shifted else "chance"

    def _biased(self, model: Model) -> bool:
        """Whether numbers can be made the only tokens that are chosen from, and listed."""
        raw = self._complete(model, "The weather is", **among_numbers())
        found = _positions(raw)
        top = found[0].top if len(found) == 1 else None
        return top is not None and len(top) > 1 and all(word in _DIGITS for word in top)

    def _complete(
        self, model: Model, text: str, *, limit: int = 1, **asked: Any
    ) -> dict[str, Any] | None:
        return self._ask(
            model.completion(text, "probe", _raw, limit=limit, sample=self.number, **asked)
        )

    # -- asking ------------------------------------------------------------------------------------

    def _ask(self, request: Request) -> dict[str, Any] | None:
        """The answer; None where the server refuses this request or lacks the endpoint."""
        session = self.model.session
        try:
            reply = session.ask([request])[0]
        except RemoteError as error:
            if error.status == 404:
                self.refusals.append(error.said)
                return None
            raise
        if reply.raw is None and not reply.reason.startswith("the server refused"):
            raise RemoteError(
                f"{session.backend.identity} could not be probed: {reply.reason}; see that "
                "base_url is right and the server works, and repeat the command"
            )
        if reply.raw is None:
            self.refusals.append(reply.reason.partition(": ")[2])
        return reply.raw


_LIMITS = ("max_tokens", "max_completion_tokens")
_CUT = "max_output_tokens"
_DIGITS = {str(v) for v in range(10)}


def among_numbers() -> dict[str, Any]:
    """Fields with which llama.cpp chooses among the ten digits and lists their probabilities."""
    return {
        "temperature": 1.0,
        "samplers": ["temperature"],
        "post_sampling_probs": True,
        "logprobs": 10,
        "logit_bias": [[digit, 100] for digit in sorted(_DIGITS)],
    }


def _raw(raw: Any) -> Any:
    return raw


def _message(raw: dict[str, Any]) -> Message | None:
    try:
        return message_of(raw)
    except Unreadable:
        return None


def _is_json(text: str, kind: str) -> bool:
    if kind not in AFTER_THOUGHT:
        return _SHAPE.keeps(text)
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if kind == "json":
        return isinstance(answer, dict)
    return isinstance(answer, dict) and set(answer) == {"id", "answers"}


def _positions(raw: dict[str, Any] | None) -> list[Position]:
    try:
        return [] if raw is None else positions_of(raw)
    except Unreadable:
        return []
