"""The text of an answer, whatever its form: what was said, apart from what was thought.

Chat, completions and the Responses API; contents that are one text or a list of parts; thought in
fields of its own, in parts, or between markers in the text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from polycode_plugins.explainers.language_model.transport.failures import Unreadable
from polycode_plugins.explainers.language_model.transport.request import thought_tokens

#: Where thought begins and ends, in the templates of models that mark it.
_NAMES = "think|thinking|thought|thoughts|reasoning|reflection|scratchpad|analysis|seed:think"
_THOUGHT = {
    rf"<(?P<name>{_NAMES})>": r"</(?P=name)>",
    r"\[THINK\]": r"\[/THINK\]",
    "◁think▷": "◁/think▷",
    r"<\|begin_of_thought\|>": r"<\|end_of_thought\|>",
    r"<\|START_THINKING\|>": r"<\|END_THINKING\|>",
    r"<\|channel\|>(?:analysis|commentary)[^<]*<\|message\|>": (
        r"(?:<\|end\|>|(?=<\|start\|>|<\|channel\|>final))"
    ),
    "<unused94>": "<unused95>",
}
_LEADING = re.compile(
    r"\s*(?:<\|start\|>assistant)?(?:"
    + "|".join(f"{begin}.*?{end}" for begin, end in _THOUGHT.items())
    + ")",
    re.DOTALL,
)
#: A thought that does not end: its mark where an answer begins, or the usual one anywhere.
_BEGUN = re.compile(r"^\s*(?:<\|start\|>assistant)?(?:" + "|".join(_THOUGHT) + r")|<think(?:ing)?>")
_ENDS = re.compile(
    rf"</(?:{_NAMES})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>|<unused95>"
)
_FRAMES = re.compile(
    r"<\|(?:begin|end)_of_solution\|>|<\|(?:START|END)_RESPONSE\|>|<\|start\|>assistant|"
    r"<\|channel\|>final[^<]*<\|message\|>|<\|(?:end|return|im_end|eot_id|endoftext)\|>|"
    r"<end_of_turn>|</s>"
)
_CUT = {"length", "max_tokens", "max_output_tokens", "model_length", "incomplete"}
_FILTERED = {
    "content_filter", "content-filter", "safety", "recitation", "prohibited_content", "blocklist",
    "spii", "refusal", "sensitive", "guardrail_intervened",
}  # fmt: skip
_BROKEN = {"error", "abort", "aborted", "cancelled", "failed", "malformed_function_call"}
_CALLED = {"tool_calls", "tool_use", "function_call"}

LENGTH = "the answer was cut at its limit of tokens"
THINKING = (
    "the model used all its tokens before it answered: give it more with thought_tokens, or less "
    "to think with reasoning_effort"
)
FILTERED = "the answer was held back by a filter of the server's"
REFUSED = "the model refused"


@dataclass(frozen=True)
class Message:
    """What an answer holds.

    Attributes:
        text: what was said, without thought; "" where there is none.
        thought: whether there was thought, in a field or between markers, told or counted.
        open: whether the text ends within a thought.
        finish: why it ended, in lower case; "" where the server does not say.
        refusal: what was said in refusal; "" where there is none.
        called: whether a tool was called.
    """

    text: str
    thought: bool
    open: bool
    finish: str
    refusal: str
    called: bool


def text_of(raw: Mapping[str, Any]) -> str:
    """The text that was answered, whole.

    Raises:
        Unreadable: where there is none, or it was cut, filtered, refused or broken off.
    """
    message = message_of(raw)
    if message.finish in _FILTERED:
        raise Unreadable(FILTERED)
    if message.refusal:
        raise Unreadable(REFUSED)
    if message.finish in _BROKEN:
        raise Unreadable("the server broke the answer off")
    if message.open or (message.finish in _CUT and not message.text.strip()):
        raise Unreadable(THINKING)
    if message.finish in _CUT:
        raise Unreadable(LENGTH)
    if not message.text.strip():
        if message.called or message.finish in _CALLED:
            raise Unreadable("the model called a tool in place of an answer")
        raise Unreadable(
            "the model thought and gave no answer" if message.thought else "the answer has no text"
        )
    return message.text


def message_of(raw: Mapping[str, Any]) -> Message:
    """What an answer holds, be it of use or not.

    Raises:
        Unreadable: where it has not the form of an answer.
    """
    if isinstance(raw.get("output"), list):
        return _of_responses(raw)
    choice = choice_of(raw)
    finish = str(choice.get("finish_reason") or "").lower()
    if "message" not in choice:
        return _said(choice.get("text"), finish, False)
    message = choice["message"]
    if not isinstance(message, Mapping):
        raise Unreadable("the answer has no message")
    apart = any(message.get(n) for n in ("reasoning_content", "reasoning", "thinking", "thought"))
    refusal = message.get("refusal")
    return _said(
        message.get("content"),
        finish,
        apart or thought_tokens(raw) > 0,
        refusal=refusal if isinstance(refusal, str) else "",
        called=bool(message.get("tool_calls") or message.get("function_call")),
    )


def _of_responses(raw: Mapping[str, Any]) -> Message:
    items = [item for item in raw["output"] if isinstance(item, Mapping)]
    kinds = [str(item.get("type")) for item in items]
    parts = [p for i in items if i.get("type") == "message" for p in _parts(i.get("content"))]
    refusals = [str(p.get("refusal") or "") for p in parts if p.get("type") == "refusal"]
    details = raw.get("incomplete_details")
    why = details.get("reason") if isinstance(details, Mapping) else None
    finish = str(why or raw.get("status") or "").lower()
    return _said(
        parts,
        "stop" if finish == "completed" else finish,
        "reasoning" in kinds or thought_tokens(raw) > 0,
        refusal=" ".join(refusals),
        called=any(kind.endswith("_call") for kind in kinds),
    )


def _said(
    content: Any, finish: str, apart: bool, *, refusal: str = "", called: bool = False
) -> Message:
    """The message of a content that is a text, a list of parts, or nothing."""
    parts = list(_parts(content))
    texts = [str(p.get("text") or "") for p in parts if p.get("type") in _SPOKEN]
    inside = any(re.search("think|reason", str(p.get("type"))) for p in parts)
    called = called or any("tool" in str(p.get("type")) for p in parts)
    text, marked, unfinished = without_thought("".join(texts))
    return Message(text, apart or inside or marked, unfinished, finish, refusal, called)


_SPOKEN = ("text", "output_text", None)


def _parts(content: Any) -> Iterator[Mapping[str, Any]]:
    """The parts of a content, {"type": .., "text": ..}."""
    if isinstance(content, str):
        yield {"type": "text", "text": content}
    elif isinstance(content, Mapping):
        yield content
    elif isinstance(content, list):
        for part in content:
            yield from _parts(part)
    elif content is not None:
        raise Unreadable("the answer's content is neither text nor a list of parts")


def without_thought(text: str) -> tuple[str, bool, bool]:
    """A text without what was thought, whether there was any, and whether it ends within it.

    Thought comes first. Templates that begin an answer within it leave its end alone in the text.
    """
    rest, open_ = text, False
    while (thought := _LEADING.match(rest)) is not None:
        rest = rest[thought.end() :]
    *_, last = [None, *_ENDS.finditer(rest)]
    if last is not None:
        rest = rest[last.end() :]
    begun = _BEGUN.search(rest)
    if begun is not None:
        rest, open_ = rest[: begun.start()], True
    marked = rest != text
    return (_FRAMES.sub("", rest) if marked else rest), marked, open_


# -- log-probabilities -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Position:
    """One token of an answer: its log-probability and those of the likeliest there (natural log).

    Both are None where the server gives none, as for the first token of a prompt.
    """

    token: str
    logprob: float | None
    top: Mapping[str, float] | None


def positions_of(raw: Mapping[str, Any]) -> list[Position]:
    """The tokens with log-probabilities, of an echoed prompt too; empty where there are none.

    Raises:
        Unreadable: where the lists have different lengths or hold no numbers.
    """
    found = _listed(raw)
    try:
        if isinstance(found, list):
            return [_position(p) for p in found]
        if not isinstance(found, Mapping):
            return []
        tokens = found.get("tokens") or []
        tops = found.get("top_logprobs") or [None] * len(tokens)
        return [
            Position(str(token), _number(logprob), _top(top))
            for token, logprob, top in zip(tokens, found["token_logprobs"], tops, strict=True)
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unreadable("the log-probabilities do not belong to the tokens") from error


def _listed(raw: Mapping[str, Any]) -> Any:
    """Log-probabilities in whatever form: a list of positions, or lists side by side."""
    if isinstance(raw.get("output"), list):
        parts = [
            p
            for item in raw["output"]
            if isinstance(item, Mapping) and item.get("type") == "message"
            for p in _parts(item.get("content"))
        ]
        return [position for p in parts for position in p.get("logprobs") or ()]
    found = choice_of(raw).get("logprobs")
    if isinstance(found, Mapping) and isinstance(found.get("content"), list):
        return found["content"]
    return found


def _position(entry: Mapping[str, Any]) -> Position:
    if "prob" in entry:  # llama.cpp, after sampling
        top = {str(p["token"]): _log(p["prob"]) for p in entry.get("top_probs") or ()}
        return Position(str(entry["token"]), _log(entry["prob"]), top)
    return Position(str(entry["token"]), _number(entry["logprob"]), _top(entry.get("top_logprobs")))


def _log(probability: Any) -> float:
    return _number(math.log(max(float(probability), 1e-300))) or 0.0


def choice_of(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first choice.

    Raises:
        Unreadable: where there is none.
    """
    choices = raw.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise Unreadable("the answer has no choices")
    choice: Mapping[str, Any] = choices[0]
    return choice


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if math.isnan(number) or number > 1e-3:
        raise ValueError("not a log-probability")
    return number


def _top(value: Any) -> dict[str, float] | None:
    if value is None:
        return None
    pairs = (
        value.items() if isinstance(value, Mapping) else [(p["token"], p["logprob"]) for p in value]
    )
    return {str(token): float(_number(logprob) or 0.0) for token, logprob in pairs}
