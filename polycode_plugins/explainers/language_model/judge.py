"""A chat model that answers yes or no by an explanation: detection and fuzzing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from polycode_plugins.explainers.base import Judge, JudgeTask, Verdict
from polycode_plugins.explainers.costs import FREE, Cost
from polycode_plugins.explainers.language_model import prompts, readings
from polycode_plugins.explainers.language_model.capabilities import Capabilities
from polycode_plugins.explainers.language_model.failures import Unreadable
from polycode_plugins.explainers.language_model.request import CHAT, Request, text_of
from polycode_plugins.explainers.language_model.session import Reply, Session

TOGETHER = 5  # texts judged in one request


class ChatJudge(Judge):
    """Judges several texts in one request, at temperature 0.

    Args:
        session: where to ask.
        model: its name.
        capabilities: what it gives; it must answer chat.
    """

    name: ClassVar[str] = "chat"

    def __init__(self, session: Session, model: str, capabilities: Capabilities) -> None:
        self.session, self.model, self.capabilities = session, model, capabilities

    def judge_many(self, tasks: Sequence[JudgeTask]) -> list[list[Verdict]]:
        """For each task one verdict per text; a request's cost is counted at its first text."""
        asked = [self._requests(task) for task in tasks]
        replies = iter(self.session.ask([r for requests in asked for r in requests]))
        verdicts: list[list[Verdict]] = []
        for requests, task in zip(asked, tasks, strict=True):
            if task.explanation.state != "ok":
                verdicts.append(
                    [Verdict(None, "there is no explanation to judge by")] * len(task.texts)
                )
                continue
            found: list[Verdict] = []
            for request in requests:
                count = min(TOGETHER, len(task.texts) - len(found))
                found += _read(next(replies), request, count)
            verdicts.append(found)
        return verdicts

    def estimate(self, tasks: Sequence[JudgeTask]) -> Cost:
        """What `judge_many` would take at most; nothing is sent."""
        return self.session.plan(r for task in tasks for r in self._requests(task)).cost

    def describe(self) -> dict[str, Any]:
        """What decides the answers."""
        return {
            "judge": self.name,
            "model": self.model,
            "backend": self.session.backend.identity,
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
        messages = prompts.judge_chat(explanation, task, texts)
        body = self.capabilities.chat_body(self.model, messages, 64 + 8 * len(texts))
        if self.capabilities.json_mode:
            body["response_format"] = {"type": "json_object"}
        return Request(CHAT, body, "judge", prompts.version())


def _read(reply: Reply, request: Request, count: int) -> list[Verdict]:
    rest = [FREE] * (count - 1)
    reason = reply.reason
    if reply.raw is not None:
        try:
            task = prompts.task_id(list(request.body["messages"]))
            judged = readings.verdicts(text_of(reply.raw), task, count)
            costs = [reply.cost, *rest]
            return [Verdict(a, "", cost) for a, cost in zip(judged, costs, strict=True)]
        except Unreadable as error:
            reason = str(error)
    return [Verdict(None, reason, cost) for cost in [reply.cost, *rest]]
