"""What an answer may look like, in the ways in which servers can be held to it.

A model that follows no format by itself is a simulator and a judge where the server lets it choose
nothing but the numbers: everything around them is fixed. llama.cpp takes a grammar, vLLM and SGLang
a regular expression, others a JSON schema, of which some read the fixed values and some only the
shape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

#: What a server is asked to keep to; "" for nothing. "parts" is for models in this process.
Restriction = Literal[
    "parts", "grammar", "structured_outputs", "guided_regex", "regex", "exact", "schema", "json", ""
]
#: Tried in this order, and the first that a server keeps to is used.
RESTRICTIONS: tuple[Restriction, ...] = (
    "grammar", "structured_outputs", "guided_regex", "regex", "exact", "schema", "json",
)  # fmt: skip
#: Those that apply to the answer alone, where a model thinks before it; the others would hold the
#: thought to it too.
AFTER_THOUGHT: tuple[Restriction, ...] = ("schema", "json")

Part = str | tuple[str, ...]


@dataclass(frozen=True)
class Shape:
    """An answer of which everything is fixed but some choices.

    Attributes:
        parts: fixed texts, and choices as tuples of texts, in order; together they are JSON.
        exact: the JSON schema that allows the same and nothing else.
        loose: a JSON schema of the kind of answer, the same for all requests of that kind.
    """

    parts: tuple[Part, ...]
    exact: Mapping[str, Any]
    loose: Mapping[str, Any]

    def fields(self, restriction: Restriction) -> dict[str, Any]:
        """What a request's body needs for a server to be held to it."""
        match restriction:
            case "parts":
                return {"parts": [p if isinstance(p, str) else list(p) for p in self.parts]}
            case "grammar":
                return {"grammar": self.grammar()}
            case "structured_outputs":
                return {"structured_outputs": {"regex": self.regex()}}
            case "guided_regex" | "regex":
                return {restriction: self.regex()}
            case "exact" | "schema":
                schema = self.exact if restriction == "exact" else self.loose
                named = {"name": "answer", "strict": True, "schema": schema}
                return {"response_format": {"type": "json_schema", "json_schema": named}}
            case "json":
                return {"response_format": {"type": "json_object"}}
        return {}

    def regex(self) -> str:
        """A regular expression that nothing else matches."""
        return "".join(
            _escaped(part) if isinstance(part, str) else f"({'|'.join(map(_escaped, part))})"
            for part in self.parts
        )

    def grammar(self) -> str:
        """The same in llama.cpp's notation."""
        rules: dict[tuple[str, ...], str] = {}
        line = []
        for part in self.parts:
            if isinstance(part, str):
                line.append(_quoted(part))
            else:
                line.append(rules.setdefault(part, f"choice{len(rules)}"))
        named = [f"{name} ::= {' | '.join(map(_quoted, of))}" for of, name in rules.items()]
        return "\n".join([f"root ::= {' '.join(line)}", *named])

    def keeps(self, text: str) -> bool:
        """Whether a text is of this shape, but for blanks between JSON's parts."""
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            return False
        spaced = json.dumps(answer, ensure_ascii=False)
        return re.fullmatch(self.regex(), spaced) is not None


def table_shape(task: str, tokens: Sequence[str], highest: int) -> Shape:
    """{"id": task, "activations": [[0, "token", number], ...]}."""
    levels = tuple(map(str, range(highest + 1)))
    parts: list[Part] = [f'{{"id": {_json(task)}, "activations": [']
    for i, token in enumerate(tokens):
        parts += [f"{', ' if i else ''}[{i}, {_json(token)}, ", levels, "]"]
    rows = [
        _listed([{"const": i}, {"const": token}, {"enum": list(range(highest + 1))}])
        for i, token in enumerate(tokens)
    ]
    cell = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    loose = {"type": "array", "items": {"type": "array", "items": cell}}
    exact = _object(activations=_listed(rows), id={"const": task})
    return Shape((*parts, "]}"), exact, _object(activations=loose, id={"type": "string"}))


def list_shape(task: str, count: int) -> Shape:
    """{"id": task, "answers": [0 or 1, ...]}."""
    parts: list[Part] = [f'{{"id": {_json(task)}, "answers": [']
    for i in range(count):
        parts += [", "] * bool(i)
        parts.append(("0", "1"))
    exact = _object(answers=_listed([{"enum": [0, 1]}] * count), id={"const": task})
    loose = _object(answers={"type": "array", "items": {"type": "integer"}}, id={"type": "string"})
    return Shape((*parts, "]}"), exact, loose)


def _object(id: Mapping[str, Any], **fields: Mapping[str, Any]) -> dict[str, Any]:
    """In the order in which the answer is to be written: the id first."""
    properties = {"id": id, **fields}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _listed(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    count = len(items)
    return {"type": "array", "prefixItems": list(items), "minItems": count, "maxItems": count}


def _json(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _escaped(text: str) -> str:
    """For the engines of all servers: a backslash before what has a meaning, nothing more."""
    return re.sub(r"([\\.^$*+?{}\[\]|()])", r"\\\1", text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
