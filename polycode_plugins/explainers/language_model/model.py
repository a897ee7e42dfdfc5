"""A model behind a backend, and how a request to it is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.language_model import prompts
from polycode_plugins.explainers.language_model.capabilities import Capabilities
from polycode_plugins.explainers.language_model.restrictions import Shape
from polycode_plugins.explainers.language_model.transport.request import (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    Purpose,
    Request,
)
from polycode_plugins.explainers.language_model.transport.session import Session

THOUGHT = 4096  # tokens of room to think in, for a model that does
Read = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Settings:
    """What a user adds to every request to a model.

    Attributes:
        effort: how much it is to think ("low"), for models that take it.
        thought_tokens: room to think in; None for `THOUGHT` where the model does, else 0.
        body: further fields of the request's JSON; a null takes a field away.
    """

    effort: str | None = None
    thought_tokens: int | None = None
    body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.body, Mapping):
            raise DataError(f"the body {self.body!r} is no JSON object such as {{'top_k': 1}}")
        taken = {"model", "messages", "prompt", "input", "stream", "n"} & set(self.body)
        if taken:
            raise DataError(f"the body may not set {', '.join(sorted(taken))}; leave it out")
        if self.thought_tokens is not None and self.thought_tokens < 0:
            raise DataError(f"thought_tokens is {self.thought_tokens}; give 0 or more")

    @property
    def name(self) -> str:
        """Tells settings apart in the store; "" for none."""
        if not self.body and self.effort is None and self.thought_tokens is None:
            return ""
        said = json.dumps([self.effort, self.thought_tokens, dict(self.body)], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Model:
    """A model, where it is asked, and what it is known to give."""

    session: Session
    name: str
    settings: Settings = field(default_factory=Settings)
    capabilities: Capabilities = field(default_factory=Capabilities)

    def knowing(self, **found: Any) -> Model:
        """The same with other capabilities."""
        return replace(self, capabilities=replace(self.capabilities, **found))

    @property
    def room(self) -> int:
        """Tokens that each answer may have beyond its length, to think in."""
        if self.settings.thought_tokens is not None:
            return self.settings.thought_tokens
        return THOUGHT if self.capabilities.reasons else 0

    def chat(
        self,
        messages: prompts.Messages,
        limit: int,
        purpose: Purpose,
        read: Read,
        *,
        temperature: float = 0.0,
        shape: Shape | None = None,
        top: int = 0,
        sample: int = 0,
    ) -> Request:
        """A request that messages are answered.

        Args:
            messages: by role and content.
            limit: tokens of the answer at most, thought apart.
            purpose: what it is for.
            read: gives what its answer says; see `Request`.
            temperature: where the model takes one.
            shape: what the answer is held to, as far as the server can.
            top: likeliest tokens to list at each place, 0 for no log-probabilities.
            sample: tells repeated draws apart.
        """
        caps = self.capabilities
        asked: dict[str, Any] = {"model": self.name}
        if caps.temperature:
            asked["temperature"] = temperature
            asked |= {"top_p": 1} if temperature > 0 else {}
        if caps.responses:
            # OpenAI takes no limit below 16.
            asked |= {"input": messages, "max_output_tokens": max(16, limit + self.room)}
            asked |= {"store": False}
            asked |= {} if self.settings.effort is None else _effort(self.settings.effort)
            asked |= {} if shape is None else _text_format(shape.fields(caps.restriction))
            return self._request(RESPONSES, asked, purpose, read, sample)
        asked |= {"messages": messages, caps.limit: limit + self.room}
        if self.settings.effort is not None:
            asked["reasoning_effort"] = self.settings.effort
        if shape is not None:
            asked |= shape.fields(caps.restriction)
        if top:
            asked |= {"logprobs": True, "top_logprobs": top}
        return self._request(CHAT, asked, purpose, read, sample)

    def completion(
        self,
        prompt: str,
        purpose: Purpose,
        read: Read,
        *,
        limit: int = 1,
        temperature: float = 0.0,
        sample: int = 0,
        **fields: Any,
    ) -> Request:
        """A request that a text is gone on from; see `chat`."""
        asked = {"model": self.name, "prompt": prompt, "max_tokens": limit}
        asked |= {"temperature": temperature, **fields}
        asked |= {"top_p": 1} if temperature > 0 else {}
        return self._request(COMPLETIONS, asked, purpose, read, sample)

    def _request(
        self, endpoint: str, asked: dict[str, Any], purpose: Purpose, read: Read, sample: int
    ) -> Request:
        asked |= self.settings.body
        body = {name: value for name, value in asked.items() if value is not None}
        return Request(endpoint, body, purpose, prompts.version(), sample, read)


def _effort(effort: str) -> dict[str, Any]:
    return {"reasoning": {"effort": effort}}


def _text_format(fields: dict[str, Any]) -> dict[str, Any]:
    """A restriction in the manner of the Responses API."""
    chosen = fields.get("response_format")
    if chosen is None:
        return fields
    if chosen["type"] == "json_schema":
        return {"text": {"format": {"type": "json_schema", **chosen["json_schema"]}}}
    return {"text": {"format": chosen}}
