"""A chat model that answers yes or no by an explanation: detection and fuzzing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from polycode_plugins.explainers.base import Judge, JudgeTask, Verdict
from polycode_plugins.explainers.costs import FREE, Cost
from polycode_plugins.explainers.language_model import prompts
from polycode_plugins.explainers.language_model.answers import tables
from polycode_plugins.explainers.language_model.answers.expectations import yes_probabilities
from polycode_plugins.explainers.language_model.answers.message import positions_of, text_of
from polycode_plugins.explainers.language_model.model import Model
from polycode_plugins.explainers.language_model.restrictions import list_shape
from polycode_plugins.explainers.language_model.transport.request import Request
from polycode_plugins.explainers.language_model.transport.session import Reply

TOGETHER = 5  # texts judged in one request


class ChatJudge(Judge):
    """Judges several texts in one request, at temperature 0.

    Where the server gives log-probabilities, a verdict has the probability of yes beside no.

    Args:
        model: that judges, with what it is known to give; it must answer chat.
    """

    name: ClassVar[str] = "chat"

    def __init__(self, model: Model) -> None:
        self.model = model

    def judge_many(self, tasks: Sequence[JudgeTask]) -> list[list[Verdict]]:
        """For each task one verdict per text; a request's cost is counted at its first text."""
        asked = [self._requests(task) for task in tasks]
        replies = iter(self.model.session.ask([r for requests in asked for r in requests]))
        verdicts: list[list[Verdict]] = []
        for requests, task in zip(asked, tasks, strict=True):
            if task.explanation.state != "ok":
                verdicts.append(
                    [Verdict(None, "there is no explanation to judge by")] * len(task.texts)
                )
                continue
            found: list[Verdict] = []
            for _ in requests:
                count = min(TOGETHER, len(task.texts) - len(found))
                found += _verdicts(next(replies), count)
            verdicts.append(found)
        return verdicts

    def estimate(self, tasks: Sequence[JudgeTask]) -> Cost:
        """What `judge_many` would take at most; nothing is sent."""
        return self.model.session.plan(r for task in tasks for r in self._requests(task)).cost

    def describe(self) -> dict[str, Any]:
        """What decides the answers."""
        return {
            "judge": self.name,
            "model": self.model.name,
            "backend": self.model.session.backend.identity,
            "prompts": prompts.version(),
            "together": TOGETHER,
        }

    def _requests(self, task: JudgeTask) -> list[Request]:
        if task.explanation.state != "ok":
            return []
        if task.task == "fuzzing":
            pairs = zip(task.texts, task.marked, strict=True)
            texts = [prompts.marked_text(tokens, marked) for tokens, marked in pairs]
        else:
            texts = ["".join(tokens) for tokens in task.texts]
        return [
            self._request(task.explanation.text, task.task, texts[i : i + TOGETHER])
            for i in range(0, len(texts), TOGETHER)
        ]

    def _request(self, explanation: str, task: str, texts: Sequence[str]) -> Request:
        messages, count = prompts.judge_chat(explanation, task, texts), len(texts)
        asked = prompts.task_id(messages)

        caps = self.model.capabilities
        top = caps.top if caps.generated_logprobs == "true" and caps.chat else 0

        def read(raw: Mapping[str, Any]) -> list[tuple[bool, float | None]]:
            answers = tables.verdicts(text_of(raw), asked, count)
            chances: list[float | None] = [None] * count
            if top:
                chances = yes_probabilities(positions_of(raw), text_of(raw), count)
            return list(zip(answers, chances, strict=True))

        shape = list_shape(asked, count)
        return self.model.chat(messages, 64 + 8 * count, "judge", read, shape=shape, top=top)


def _verdicts(reply: Reply, count: int) -> list[Verdict]:
    answers = [(None, None)] * count if reply.raw is None else reply.value
    costs = [reply.cost, *[FREE] * (count - 1)]
    return [
        Verdict(answer, reply.reason, cost, chance)
        for (answer, chance), cost in zip(answers, costs, strict=True)
    ]
