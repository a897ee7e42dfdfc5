"""Simulators over a model: each reads its answer elsewhere, and their scores are never pooled."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from polycode_plugins.explainers.base import (
    LEVELS,
    Floats,
    Simulation,
    SimulationTask,
    Simulator,
)
from polycode_plugins.explainers.costs import FREE, Cost
from polycode_plugins.explainers.language_model import prompts
from polycode_plugins.explainers.language_model.answers import expectations, tables
from polycode_plugins.explainers.language_model.answers.message import positions_of, text_of
from polycode_plugins.explainers.language_model.capabilities import Method
from polycode_plugins.explainers.language_model.model import Model
from polycode_plugins.explainers.language_model.probe import among_numbers
from polycode_plugins.explainers.language_model.restrictions import table_shape
from polycode_plugins.explainers.language_model.transport.request import Purpose, Request
from polycode_plugins.explainers.language_model.transport.session import Reply

#: Tokens of a row [index, token, number] of a structured answer, at most, and of what is around.
ROW, AROUND = 16, 64
NO_EXPLANATION = "there is no explanation to simulate"


class RemoteSimulator(Simulator):
    """What the simulators have in common: requests for all texts at once, one reading of each.

    Args:
        model: that simulates, with what it is known to give.
        trial: the number of a trial that is not part of a run; None in a run.
    """

    def __init__(self, model: Model, *, trial: int | None = None) -> None:
        self.model = model
        self.purpose: Purpose = "simulate" if trial is None else "probe"
        self.sample = trial or 0
        self.highest = LEVELS if model.capabilities.ten else LEVELS - 1

    @abstractmethod
    def requests(self, explanation: str, tokens: Sequence[str]) -> list[Request]:
        """The requests for one text; their answers say expected values on the scale 0-10."""

    def simulate_many(self, tasks: Sequence[SimulationTask]) -> list[list[Simulation]]:
        """For each task one simulation per text; a failed explanation is not asked about."""
        asked = [self._requests(task) for task in tasks]
        flat = [r for task in asked for requests in task for r in requests]
        replies = iter(self.model.session.ask(flat))
        return [
            [
                self._simulation(task, [next(replies) for _ in requests], tokens)
                for requests, tokens in zip(of_task, task.texts, strict=True)
            ]
            for of_task, task in zip(asked, tasks, strict=True)
        ]

    def estimate(self, tasks: Sequence[SimulationTask]) -> Cost:
        """What `simulate_many` would take at most; nothing is sent."""
        requests = (r for task in tasks for rs in self._requests(task) for r in rs)
        return self.model.session.plan(requests).cost

    def describe(self) -> dict[str, Any]:
        """What decides the answers."""
        return {
            "simulator": self.name,
            "model": self.model.name,
            "backend": self.model.session.backend.identity,
            "prompts": prompts.version(),
            "scale": self.highest,
            "restriction": self.model.capabilities.restriction,
        }

    def _requests(self, task: SimulationTask) -> list[list[Request]]:
        if task.explanation.state != "ok":
            return [[] for _ in task.texts]
        return [self.requests(task.explanation.text, t) if t else [] for t in task.texts]

    def _simulation(
        self, task: SimulationTask, replies: Sequence[Reply], tokens: Sequence[str]
    ) -> Simulation:
        cost = sum((reply.cost for reply in replies), FREE)
        if task.explanation.state != "ok":
            return Simulation.failed(NO_EXPLANATION)
        if not tokens:
            return Simulation.failed("the text has no tokens")
        missing = next((reply.reason for reply in replies if reply.raw is None), None)
        if missing is not None:
            return Simulation.failed(missing, cost)
        return Simulation(np.concatenate([reply.value for reply in replies]), cost=cost)


class PromptSimulator(RemoteSimulator):
    """All tokens at once, from the log-probabilities of the prompt (Bills et al. 2023)."""

    name: ClassVar[str] = "prompt-logprobs"

    def requests(self, explanation: str, tokens: Sequence[str]) -> list[Request]:
        """One, whose prompt is echoed."""
        prompt = prompts.simulate_text(explanation, tokens, top=self.highest)
        read = functools.partial(self._read, prompt, len(tokens))
        top = self.model.capabilities.top
        return [
            self.model.completion(
                prompt, self.purpose, read, sample=self.sample, logprobs=top, echo=True
            )
        ]

    def _read(self, prompt: str, count: int, raw: Mapping[str, Any]) -> Floats:
        """Expected values at the words "unknown"."""
        return expectations.at_unknown(positions_of(raw), prompt, count, self.highest)


class TokenSimulator(RemoteSimulator):
    """One request a token, from the log-probabilities of the one token generated.

    Where the server can choose among the digits alone, their probabilities are exact, and the scale
    is 0-9.
    """

    name: ClassVar[str] = "token-by-token"

    def __init__(self, model: Model, *, trial: int | None = None) -> None:
        super().__init__(model, trial=trial)
        self._asked: dict[str, Any] = {"logprobs": model.capabilities.top}
        if model.capabilities.bias:
            self.highest, self._asked = LEVELS - 1, among_numbers()

    def requests(self, explanation: str, tokens: Sequence[str]) -> list[Request]:
        """One for each token."""
        return [
            self.model.completion(
                prompts.simulate_next(explanation, tokens, i, top=self.highest),
                self.purpose,
                self._read,
                sample=self.sample,
                **self._asked,
            )
            for i in range(len(tokens))
        ]

    def _read(self, raw: Mapping[str, Any]) -> Floats:
        """The expected value of the answer's one token, [1]."""
        return np.array([expectations.first_token(positions_of(raw), self.highest)])


class TextSimulator(RemoteSimulator):
    """The whole numbers a chat model answers, one request a text."""

    name: ClassVar[str] = "text"

    def __init__(self, model: Model, *, trial: int | None = None) -> None:
        super().__init__(model, trial=trial)
        self.highest = LEVELS

    def requests(self, explanation: str, tokens: Sequence[str]) -> list[Request]:
        """One, for a table of all tokens."""
        messages = prompts.simulate_chat(explanation, tokens, top=self.highest)
        task = prompts.task_id(messages)
        return [
            self.model.chat(
                messages,
                AROUND + ROW * len(tokens),
                self.purpose,
                functools.partial(self._read, task, tuple(tokens)),
                shape=table_shape(task, tokens, self.highest),
                top=self._listed(),
                sample=self.sample,
            )
        ]

    def _listed(self) -> int:
        """Likeliest tokens that are asked for at each place."""
        return 0

    def _read(self, task: str, tokens: Sequence[str], raw: Mapping[str, Any]) -> Floats:
        """The table's numbers."""
        return tables.table(text_of(raw), task, tokens, self.highest)


class GeneratedSimulator(TextSimulator):
    """The same table, with the expected value at each of its numbers."""

    name: ClassVar[str] = "generated-logprobs"

    def __init__(self, model: Model, *, trial: int | None = None) -> None:
        super().__init__(model, trial=trial)
        self.highest = LEVELS if model.capabilities.ten else LEVELS - 1

    def _listed(self) -> int:
        return self.model.capabilities.top

    def _read(self, task: str, tokens: Sequence[str], raw: Mapping[str, Any]) -> Floats:
        """Expected values at the table's numbers."""
        text = text_of(raw)
        return expectations.table_expected(positions_of(raw), text, task, tokens, self.highest)


class _Make(Protocol):
    def __call__(self, model: Model, *, trial: int | None = None) -> RemoteSimulator: ...


BY_METHOD: dict[Method, _Make] = {
    "prompt-logprobs": PromptSimulator,
    "generated-logprobs": GeneratedSimulator,
    "token-by-token": TokenSimulator,
    "text": TextSimulator,
}
