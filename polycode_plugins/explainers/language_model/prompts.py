"""Every word that is sent to a model. The hash of what they make is part of the store's keys.

The structure is that of OpenAI's protocol (Bills et al. 2023): lines of token, tab, whole number;
the non-zero lines again where few are; examples first; a fixed beginning to go on from; and, to
simulate all tokens at once, the word "unknown" where the model's expectation is read off. The
sentences and the examples are our own.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

Text = tuple[Sequence[str], Sequence[int]]  # tokens and their levels, 0-10
Messages = list[dict[str, str]]

PREFIX = "responds to"
UNKNOWN = "unknown"
SPARSE = 0.2  # below this share of non-zero tokens they are listed again

EXPLAIN = (
    "A unit of a language model gives every token of a text a whole number from 0 (silent) to 10 "
    "(as active as it gets). For each unit you see some texts, one token a line, followed by a tab "
    "and the number. Work out what the active tokens share that the silent ones lack, be it their "
    "meaning, their form, or what stands around them, and say it in one short phrase that somebody "
    "could use to predict the numbers for a new text. Do not list the tokens and give no reasons."
)
SIMULATE = (
    "A unit of a language model gives every token of a text a whole number from 0 (silent) to 10 "
    "(as active as it gets). From a phrase that says what a unit responds to, its number for each "
    "token is predicted. Most tokens of most texts get 0."
)
ANSWER_TABLE = (
    ' You get JSON with "id", "explanation" and "tokens", a list of [index, token]. Answer with '
    'JSON alone: {"id": the same id, "activations": [[index, token, number], ...]}, with every '
    "token in the same order and a whole number from 0 to 10 for each."
)
DETECT = (
    "A unit of a language model is active at some tokens and silent at others. From a phrase that "
    "says what it responds to, you decide for each text whether the unit is active somewhere in it."
)
FUZZ = (
    "A unit of a language model is active at some tokens and silent at others. In each text some "
    "tokens are marked, <<like this>>. From a phrase that says what the unit responds to, you "
    "decide for each text whether the unit is active at the marked tokens."
)
ANSWER_LIST = (
    ' You get JSON with "id", "task", "explanation" and "texts". Answer with JSON alone: {"id": '
    'the same id, "answers": [1 for yes or 0 for no, one for each text in order]}.'
)

#: Explanation, and texts as tokens with levels, of three made-up units.
EXAMPLES: tuple[tuple[str, tuple[Text, ...]], ...] = (
    (
        "words for weather",
        (
            (
                ("All", " night", " the", " rain", " drummed", " on", " the", " tin", " roof", "."),
                (0, 0, 0, 9, 1, 0, 0, 0, 0, 0),
            ),
            (
                ("A", " cold", " wind", " and", " then", " snow", " closed", " the", " pass", "."),
                (0, 3, 10, 0, 0, 9, 0, 0, 0, 0),
            ),
        ),
    ),
    (
        "closing brackets in code",
        (
            (
                ("total", " =", " sum", "(", "prices", "[", "1", ":", "]", ")", "\n"),
                (0, 0, 0, 0, 0, 0, 0, 0, 8, 10, 0),
            ),
            (
                ("if", " ready", "(", "x", ")", ":", "\n", " ", " go", "(", ")", "\n"),
                (0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 10, 0),
            ),
        ),
    ),
    (
        "the second of two names that stand side by side",
        (
            (
                ("They", " asked", " Ada", " Lovelace", " about", " it", " in", " London", "."),
                (0, 0, 1, 10, 0, 0, 0, 0, 0),
            ),
            (
                ("For", " years", " Marie", " Curie", " kept", " notes", " at", " home", "."),
                (0, 0, 1, 9, 0, 0, 0, 0, 0),
            ),
        ),
    ),
)


@functools.cache
def version() -> str:
    """Twelve digits of a hash of all that these functions make for an example."""
    texts = list(EXAMPLES[0][1])
    made = [
        explain_chat(texts),
        explain_text(texts),
        simulate_text("x", ["a", "b"], top=10),
        simulate_chat("x", ["a", "b"], top=10),
        judge_chat("x", "detection", ["a"]),
        judge_chat("x", "fuzzing", ["a"]),
    ]
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()[:12]


# -- explaining ------------------------------------------------------------------------------------


def explain_chat(texts: Sequence[Text]) -> Messages:
    """Messages whose answer goes on from "Unit 4 responds to"."""
    messages = [{"role": "system", "content": EXPLAIN}]
    for number, (explanation, shown) in enumerate(EXAMPLES, start=1):
        messages.append({"role": "user", "content": _evidence(number, shown)})
        messages.append({"role": "assistant", "content": f"{explanation}."})
    messages.append({"role": "user", "content": _evidence(len(EXAMPLES) + 1, texts)})
    return messages


def explain_text(texts: Sequence[Text]) -> str:
    """The same as one text, for models that only go on from a text."""
    parts = [EXPLAIN]
    for number, (explanation, shown) in enumerate(EXAMPLES, start=1):
        parts.append(f"{_evidence(number, shown)} {explanation}.")
    parts.append(_evidence(len(EXAMPLES) + 1, texts))
    return "\n\n".join(parts)


def _evidence(number: int, texts: Sequence[Text]) -> str:
    lines = [f"\nUnit {number}"]
    lines += [_table(tokens, levels) for tokens, levels in texts]
    active = sum(level > 0 for _, levels in texts for level in levels)
    total = sum(len(levels) for _, levels in texts)
    if 0 < active < SPARSE * total:
        lines.append("Of these the active ones:")
        for tokens, levels in texts:
            kept = [(t, v) for t, v in zip(tokens, levels, strict=True) if v > 0]
            if kept:
                lines.append(_table([t for t, _ in kept], [v for _, v in kept]))
    return "\n".join([*lines, f"Unit {number} {PREFIX}"])


def _table(tokens: Sequence[str], values: Sequence[Any]) -> str:
    rows = [f"{visible(t)}\t{v}" for t, v in zip(tokens, values, strict=True)]
    return "\n".join(["<text>", *rows, "</text>"])


def visible(token: str) -> str:
    """A token on one line: what would break the table is written as an escape."""
    return token.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


# -- simulating ------------------------------------------------------------------------------------


def simulate_text(explanation: str, tokens: Sequence[str], *, top: int) -> str:
    """A text in which a model's expectation of each number is read at the word "unknown".

    In the examples the word stands for the first half and the numbers for the second, so that the
    model expects a number at either. The last `len(tokens)` of the words are the ones to read.

    Args:
        explanation: of the unit.
        tokens: of the text.
        top: the highest number: 10, or 9 for models that write 10 as two tokens.
    """
    scale = SIMULATE if top == 10 else SIMULATE.replace("10", str(top))
    parts = [scale]
    for number, (phrase, texts) in enumerate(EXAMPLES, start=1):
        for shown, levels in texts:
            half = len(shown) // 2
            values = [UNKNOWN if i < half else v * top // 10 for i, v in enumerate(levels)]
            parts.append(f"Unit {number} {PREFIX} {phrase}\n{_table(shown, values)}")
    last = _table(tokens, [UNKNOWN] * len(tokens)).removesuffix("</text>")
    parts.append(f"Unit {len(EXAMPLES) + 1} {PREFIX} {one_line(explanation)}\n{last}")
    return "\n\n".join(parts)


def simulate_next(explanation: str, tokens: Sequence[str], index: int, *, top: int) -> str:
    """The same up to where the number of token `index` is to follow."""
    return simulate_text(explanation, tokens[: index + 1], top=top).removesuffix(f"{UNKNOWN}\n")


def one_line(text: str) -> str:
    """A phrase without line breaks."""
    return " ".join(text.split())


def simulate_chat(explanation: str, tokens: Sequence[str], *, top: int) -> Messages:
    """Messages whose answer is the table of all tokens as JSON, with numbers from 0 to `top`."""
    scale = SIMULATE + ANSWER_TABLE
    messages = [{"role": "system", "content": scale.replace("10", str(top))}]
    for phrase, texts in EXAMPLES:
        for shown, levels in texts[:1]:
            task = _task({"explanation": phrase, "tokens": _indexed(shown)})
            values = [v * top // 10 for v in levels]
            rows = [[i, t, v] for (i, t), v in zip(_indexed(shown), values, strict=True)]
            answer = json.dumps({"id": task["id"], "activations": rows}, ensure_ascii=False)
            messages.append({"role": "user", "content": _json(task)})
            messages.append({"role": "assistant", "content": answer})
    task = _task({"explanation": one_line(explanation), "tokens": _indexed(tokens)})
    return [*messages, {"role": "user", "content": _json(task)}]


def judge_chat(explanation: str, task: str, texts: Sequence[str]) -> Messages:
    """Messages whose answer is a list of 0 and 1; `task` is "detection" or "fuzzing"."""
    what = DETECT if task == "detection" else FUZZ
    asked = _task({"task": task, "explanation": one_line(explanation), "texts": list(texts)})
    return [
        {"role": "system", "content": what + ANSWER_LIST},
        {"role": "user", "content": _json(asked)},
    ]


def marked_text(tokens: Sequence[str], marked: Sequence[int]) -> str:
    """The text with each run of marked tokens in << >>."""
    chosen, parts = set(marked), []
    for i, token in enumerate(tokens):
        before = "<<" if i in chosen and i - 1 not in chosen else ""
        after = ">>" if i in chosen and i + 1 not in chosen else ""
        parts.append(f"{before}{token}{after}")
    return "".join(parts)


def task_id(messages: Messages) -> str:
    """The id that the answer to these messages must repeat."""
    return str(json.loads(messages[-1]["content"])["id"])


def _task(fields: dict[str, Any]) -> dict[str, Any]:
    return {"id": hashlib.sha256(_json(fields).encode()).hexdigest()[:6], **fields}


def _indexed(tokens: Sequence[str]) -> list[list[Any]]:
    return [[i, token] for i, token in enumerate(tokens)]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
