"""A backend that answers by rule, so that the explainer `openai` is checked without a network."""

from __future__ import annotations

import json
import re
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polycode_plugins.explainers.language_model import OpenAIExplainer
from polycode_plugins.explainers.language_model.transport.failures import Refused
from polycode_plugins.explainers.language_model.transport.request import CHAT, Request


class Scripted:
    """A chat model without log-probabilities that names the token it sees at the highest level.

    Its phrases have the form `the token "cat"`, and by them it simulates and judges.
    """

    identity = "scripted"
    name = "rules"

    def send(self, request: Request, key: str) -> dict[str, Any]:
        """The answer as JSON; see `server.Backend`."""
        if request.endpoint != CHAT:
            raise Refused("the server refused the request (404)")
        text = _answer(str(request.body["messages"][-1]["content"]))
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": text}}
        return {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}


def scripted_explainer() -> OpenAIExplainer:
    """An explainer over the backend; its store goes with it."""
    folder = tempfile.TemporaryDirectory()
    made = OpenAIExplainer(backend=Scripted(), store=Path(folder.name) / "answers.sqlite")
    weakref.finalize(made, folder.cleanup)
    return made


def _answer(asked: str) -> str:
    try:
        task = json.loads(asked)
    except ValueError:
        return _phrase(asked)
    word = re.sub(r'^the token "(.*)"$', r"\1", task.get("explanation", ""))
    if "tokens" in task:
        rows = [[i, token, 10 * (token.strip() == word)] for i, token in task["tokens"]]
        return json.dumps({"id": task["id"], "activations": rows})
    answers = [int(bool(word) and word in text) for text in task["texts"]]
    return json.dumps({"id": task["id"], "answers": answers})


def _phrase(asked: str) -> str:
    """What it says of a table of tokens and levels, or of a question that a probe asks."""
    levels: Mapping[str, int] = {
        token.strip(): int(level) for token, level in re.findall(r"^(.+)\t(\d+)$", asked, re.M)
    }
    if not levels:
        return asked.partition("exactly: ")[2] or '{"id": 1}'
    return f'the token "{max(levels, key=lambda token: levels[token])}"'
