"""What the planted model knows: three concepts, and answers that follow from them exactly."""

from __future__ import annotations

import json
import math
import re
from typing import Any

CONCEPTS = {
    "names of colours": {"red", "green", "blue", "yellow", "purple"},
    "numbers written as words": {"one", "two", "three", "four", "seven"},
    "animals kept on a farm": {"cow", "sheep", "goat", "horse", "hen"},
}
FIRES = {"10": 0.7, "9": 0.2, "8": 0.1}
SILENT = {"0": 0.9, "1": 0.1}
EXPECTED_FIRES = 9.6
EXPECTED_SILENT = 0.1
NUMBERS = 0.8  # the rest of the mass lies on a token that is no number
PREFIX = "responds to"

TOKENS = re.compile(r"\t|\n| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+| +")


def fires(explanation: str, token: str) -> bool:
    """Whether the concept that the explanation names holds the token."""
    words = next((w for name, w in CONCEPTS.items() if name in explanation), set())
    return token.strip().lower() in words


def explain(prompt: str) -> str:
    """The concept that the tokens with the highest levels share, of the last unit shown."""
    section = re.split(r"^Unit \d+$", prompt, flags=re.MULTILINE)[-1]
    shown = re.findall(r"^(.*)\t(\d+)$", section, flags=re.MULTILINE)
    high = {token.strip().lower() for token, level in shown if int(level) >= 5}
    best = max(CONCEPTS, key=lambda name: len(CONCEPTS[name] & high))
    return best if CONCEPTS[best] & high else "nothing in particular"


def next_token(text: str, tokens: list[str]) -> dict[str, float]:
    """Probabilities of the token after `text`, which splits into `tokens`."""
    if tokens and tokens[-1] == "\t":
        line = text[:-1].rpartition("\n")[2]
        told = re.findall(rf"{PREFIX} (.+)", text)
        numbers = FIRES if told and fires(told[-1], line) else SILENT
        return {**{v: p * NUMBERS for v, p in numbers.items()}, " unknown": 1 - NUMBERS}
    for back in range(len(tokens) - 2, 0, -1):  # what followed the last two tokens before
        if tokens[back - 1 : back + 1] == tokens[-2:] and back + 1 < len(tokens):
            return {tokens[back + 1]: 0.9, "?": 0.1}
    return {"?": 0.6, "!": 0.4}


def chat(messages: list[dict[str, str]]) -> str:
    """The answer to the last message."""
    last = messages[-1]["content"]
    try:
        task = json.loads(last)
    except ValueError:
        return explain(last) if "\t" in last else repeat(last)
    if "tokens" in task:
        rows = [
            [i, token, 10 if fires(task["explanation"], token) else 0]
            for i, token in task["tokens"]
        ]
        return json.dumps({"id": task["id"], "activations": rows})
    return json.dumps({"id": task["id"], "answers": [_judge(task, t) for t in task["texts"]]})


def _judge(task: dict[str, Any], text: str) -> int:
    marked = re.findall(r"<<(.*?)>>", text)
    words = re.findall(r"[A-Za-z]+", " ".join(marked) if task["task"] == "fuzzing" else text)
    hits = [fires(task["explanation"], word) for word in words]
    return int(all(hits) and bool(hits) if task["task"] == "fuzzing" else any(hits))


def repeat(text: str) -> str:
    """What it is told to repeat, or how a pattern goes on."""
    if "exactly:" in text:
        return text.partition("exactly: ")[2]
    best = next_token(text, TOKENS.findall(text))
    return max(best, key=lambda t: best[t]).strip()


def positions(text: str) -> list[tuple[str, float | None, dict[str, float] | None]]:
    """Each token of a text with its log-probability and those of the likeliest tokens."""
    tokens = TOKENS.findall(text)
    found: list[tuple[str, float | None, dict[str, float] | None]] = []
    upto = ""
    for i, token in enumerate(tokens):
        if i == 0:
            found.append((token, None, None))
        else:
            probabilities = next_token(upto, tokens[:i])
            top = {t: math.log(p) for t, p in probabilities.items()}
            found.append((token, top.get(token, math.log(1e-6)), top))
        upto += token
    return found


OTHER = {"0": "1", "1": "0"}


def generated(text: str) -> list[dict[str, Any]]:
    """Log-probabilities of an answer's tokens as the chat protocol gives them.

    A number after a comma and before a bracket carries the planted distribution; a token that
    fires was answered 10. Beside a 0 or 1 that is none the other is listed.
    """
    content = []
    tokens = TOKENS.findall(text)
    for i, token in enumerate(tokens):
        value = token.strip()
        is_value = value in ("0", "10") and i + 1 < len(tokens) and tokens[i + 1].startswith("]")
        probabilities = {value: 0.97, OTHER.get(value, "?"): 0.03}
        if is_value:
            probabilities = FIRES if value == "10" else SILENT
        top = [
            {"token": (" " if token[0] == " " else "") + v, "logprob": math.log(p)}
            for v, p in probabilities.items()
        ]
        content.append({"token": token, "logprob": top[0]["logprob"], "top_logprobs": top})
    return content
