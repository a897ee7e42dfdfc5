"""Simulators over a model: each reads its answer elsewhere, and their scores are never pooled."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from polycode_plugins.explainers.base import (
    LEVELS,
    Floats,
    Simulation,
    SimulationTask,
    Simulator,
)
from polycode_plugins.explainers.costs import FREE, Cost
from polycode_plugins.explainers.language_model import prompts, readings
from polycode_plugins.explainers.language_model.capabilities import Capabilities, Method
from polycode_plugins.explainers.language_model.failures import Unreadable
from polycode_plugins.explainers.language_model.request import (
    CHAT,
    COMPLETIONS,
    Request,
    positions_of,
    text_of,
)
from polycode_plugins.explainers.language_model.session import Reply, Session

#: Tokens of a row [index, token, number] of a structured answer, at most, and of what is around.
ROW, AROUND = 16, 64
NO_EXPLANATION = "there is no explanation to simulate"


class RemoteSimulator(Simulator):
    """What the simulators have in common: requests for all texts at once, one reading of each.

    Args:
        session: where to ask.
        model: its name.
        capabilities: what it gives, from `capabilities`.
    """

    def __init__(self, session: Session, model: str, capabilities: Capabilities) -> None:
        self.session, self.model, self.capabilities = session, model, capabilities
        self.highest = LEVELS

    @abstractmethod
    def requests(self, explanation: str, tokens: Sequence[str]) -> list[Request]:
        """The requests for one text."""

    @abstractmethod
    def read(
        self, requests: Sequence[Request], answers: Sequence[dict[str, Any]], tokens: Sequence[str]
    ) -> Floats:
        """Expected values [tokens] on the scale 0-10; raises Unreadable."""

    def simulate_many(self, tasks: Sequence[SimulationTask]) -> list[list[Simulation]]:
        """For each task one simulation per text; a failed explanation is not asked about."""
        asked = [self._requests(task) for task in tasks]
        flat = [r for task in asked for requests in task for r in requests]
        replies = iter(self.session.ask(flat))
        return [
            [
                self._simulation(task, requests, [next(replies) for _ in requests], tokens)
                for requests, tokens in zip(of_task, task.texts, strict=True)
            ]
            for of_task, task in zip(asked, tasks, strict=True)
        ]

    def estimate(self, tasks: Sequence[SimulationTask]) -> Cost:
        """What `simulate_many` would take at most; nothing is sent."""
        requests = (r for task in tasks for rs in self._requests(task) for r in rs)
        return self.session.plan(requests).cost

    def describe(self) -> dict[str, Any]:
        """What decides the answers."""
        return {
            "simulator": self.name,
            "model": self.model,
            "backend": self.session.backend.identity,
            "prompts": prompts.version(),
            "scale": self.highest,
        }

    def _requests(self, task: SimulationTask) -> list[list[Request]]:
        if task.explanation.state != "ok":
            return [[] for _ in task.texts]
        return [self.requests(task.explanation.text, t) if t else [] for t in task.texts]

    def _simulation(
        self,
        task: SimulationTask,
        requests: Sequence[Request],
        replies: Sequence[Reply],
        tokens: Sequence[str],
    ) -> Simulation:
        cost = sum((reply.cost for reply in replies), FREE)
        if task.explanation.state != "ok":
            return Simulation.failed(NO_EXPLANATION)
        if not tokens:
            return Simulation.failed("the text has no tokens")
        missing = next((reply.reason for reply in replies if reply.raw is None), None)
        if missing is not None:
            return Simulation.failed(missing, cost)
        try:
            answers = [reply.raw for reply in replies if reply.raw is not None]
            return Simulation(self.read(requests, answers, tokens), cost=cost)
        except Unreadable as error:
            return Simulation.failed(str(error), cost)

    def _completion(self, prompt: str, **fields: Any) -> Request:
        body = {"model": self.model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
        body |= {"logprobs": self.capabilities.top, **fields}
        return Request(COMPLETIONS, body, "simulate", prompts.version())


class PromptSimulator(RemoteSimulator):
    """All tokens at once, from the log-probabilities of the prompt (Bills et al. 2023)."""

    name: ClassVar[str] = "prompt-logprobs"

    def __init__(self, session: Session, model: str, capabilities: Capabilities) -> None:
        super().__init__(session, model, capabilities)
        self.highest = LEVELS if capabilities.ten else LEVELS - 1

    def requests(self, explanation: str, tokens: Sequence[str]) -> list[Request]:
        """One, whose prompt is echoed."""
        prompt = prompts.simulate_text(explanation, tokens, top=self.highest)
        return [self._completion(prompt, echo=True)]

    def read(
        self, requests: Sequence[Request], answers: Sequence[dict[str, Any]], tokens: Sequence[str]
    ) -> Floats:
        """Expected values at the words "unknown"."""
        prompt = str(requests[0].body["prompt"])
        return readings.at_unknown(positions_of(answers[0]), prompt, len(tokens), self.highest)


class TokenSimulator(RemoteSimulator):
    """One request a token, from the log-probabilities of the one token generated."""

    name: ClassVar[str] = "token-by-token"

    def __init__(self, session: Session, model: str, capabilities: Capabilities) -> None:
        super().__init__(session, model, capabilities)
        self.highest = LEVELS if capabilities.ten else LEVELS - 1

    def requests(self, explanation: str, tokens: Sequence[str]) -> list[Request]:
        """One for each token."""
        return [
            self._completion(prompts.simulate_next(explanation, tokens, i, top=self.highest))
            for i in range(len(tokens))
        ]

    def read(
        self, requests: Sequence[Request], answers: Sequence[dict[str, Any]], tokens: Sequence[str]
    ) -> Floats:
        """The expected value of each answer's first token."""
        values = []
        for answer in answers:
            found = positions_of(answer)
            if len(found) != 1 or found[0].top is None:
                raise Unreadable("there are no log-probabilities of the answer")
            values.append(readings.expected_value(found[0].top, self.highest))
        return np.array(values, dtype=np.float64)


class TextSimulator(RemoteSimulator):
    """The whole numbers a chat model answers, one request a text."""

    name: ClassVar[str] = "text"

    def requests(self, explanation: str, tokens: Sequence[str]) -> list[Request]:
        """One, for a table of all tokens."""
        messages = prompts.simulate_chat(explanation, tokens)
        body = self.capabilities.chat_body(self.model, messages, AROUND + ROW * len(tokens))
        if self.capabilities.json_mode:
            body["response_format"] = {"type": "json_object"}
        return [Request(CHAT, body, "simulate", prompts.version())]

    def read(
        self, requests: Sequence[Request], answers: Sequence[dict[str, Any]], tokens: Sequence[str]
    ) -> Floats:
        """The table's numbers."""
        return readings.table(text_of(answers[0]), _id(requests[0]), tokens)


class GeneratedSimulator(TextSimulator):
    """The same table, with the expected value at each of its numbers."""

    name: ClassVar[str] = "generated-logprobs"

    def requests(self, explanation: str, tokens: Sequence[str]) -> list[Request]:
        """The same with log-probabilities."""
        plain = super().requests(explanation, tokens)[0]
        body = {**plain.body, "logprobs": True, "top_logprobs": min(self.capabilities.top, 15)}
        return [Request(CHAT, body, "simulate", prompts.version())]

    def read(
        self, requests: Sequence[Request], answers: Sequence[dict[str, Any]], tokens: Sequence[str]
    ) -> Floats:
        """Expected values at the table's numbers."""
        found, text = positions_of(answers[0]), text_of(answers[0])
        return readings.table_expected(found, text, _id(requests[0]), tokens)


def _id(request: Request) -> str:
    return prompts.task_id(list(request.body["messages"]))


BY_METHOD: dict[Method, Callable[[Session, str, Capabilities], RemoteSimulator]] = {
    "prompt-logprobs": PromptSimulator,
    "generated-logprobs": GeneratedSimulator,
    "token-by-token": TokenSimulator,
    "text": TextSimulator,
}
