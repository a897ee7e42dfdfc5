"""A run's record in words: its model, its data, the call that repeats it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polycode_plugins.metrics.base import Metric

if TYPE_CHECKING:
    from polycode_plugins.runs.analysis import Analysis

_UNRECORDED = "not recorded"
# How a run records data that was an object: its type, and its shape where it has one.
_LIVE = re.compile(r"(list|tuple|dict|generator|DataLoader|Dataset|[A-Za-z_]\w*\([\d, ]*\))")


def model_name(run: dict[str, Any]) -> str:
    """The model's name (of a folder the last part) or else its type; "" where there is none."""
    model = run.get("model") or {}
    name = str(model.get("name") or model.get("type") or "")
    return Path(name).name or name if Path(name).is_absolute() else name


def model_text(run: dict[str, Any]) -> str:
    """The model with its type, size and number format, as far as they are known."""
    model = run.get("model") or {}
    name = model_name(run)
    if not name:
        return f"{_UNRECORDED}: the activations were given"
    details = [str(model["type"])] if model.get("type") and model["type"] != name else []
    if model.get("parameters"):
        details.append(f"{size(int(model['parameters']))} parameters")
    if model.get("dtype"):
        details.append(str(model["dtype"]))
    if model.get("init_seed") is not None:
        details.append("random weights")
    return f"{name} ({', '.join(details)})" if details else name


def data_text(run: dict[str, Any]) -> str:
    """The data by name, with the number of rows that were read."""
    data = str(run.get("data", _UNRECORDED))
    words = {
        "embedded": "the embedded default",
        "attached": "whatever the model was run on while the metrics were attached",
        "measured": "activations that were there already",
    }
    rows = int((run.get("rows") or {}).get("count") or 0)
    return words.get(data, data) + (f", {count(rows, 'row')}" if rows else "")


def python_call(analysis: Analysis) -> str:
    """The call that gives this analysis; what has no name stands as a variable."""
    run = analysis.run
    used = analysis.metric_objects
    others = {(type(m).__module__, type(m).__name__) for m in used if not _built_in(m)}
    lines = ["import polycode_plugins as pc"]
    lines += [f"from {module} import {name}" for module, name in sorted(others)]
    metrics = f"[{', '.join(metric_call(m) for m in used)}]"
    sites = repr([s.name for s in analysis.sites])
    model = run.get("model") or {}
    shown = repr(str(model["name"])) if model.get("name") else "model"
    data = run.get("data")
    if data == "measured":
        return "\n".join([*lines, "", f"analysis = pc.measure(activations, {metrics})"])
    if data == "attached":
        return "\n".join(
            [
                *lines,
                "",
                f"with pc.attach({shown}, {sites}, {metrics}) as probe:",
                "    ...  # run the model",
                "analysis = probe.compute()",
            ]
        )
    source = "None" if data == "embedded" else repr(data)
    if _LIVE.fullmatch(str(data)):
        lines += ["", f"# data is an object of your own; it was recorded as {data}"]
        source = "data"
    arguments = [shown, source, f"metrics={metrics}", f"sites={sites}", f"seed={run.get('seed')!r}"]
    arguments += [f"adapter={model['adapter']!r}"] if model.get("adapter") else []
    arguments += [f"{k}={v!r}" for k, v in (run.get("options") or {}).items()]
    body = ",\n    ".join(arguments)
    return "\n".join([*lines, "", f"analysis = pc.analyze(\n    {body},\n)"])


def metric_call(metric: Metric) -> str:
    """The metric as Python writes it, with the settings that are not its defaults."""
    settings = ", ".join(
        f"{f.name}={getattr(metric, f.name)!r}"
        for f in dataclasses.fields(metric)
        if (f.default is dataclasses.MISSING or getattr(metric, f.name) != f.default)
        and not (f.name == "label" and metric.label == metric.name)
    )
    prefix = "pc.metrics." if _built_in(metric) else ""
    return f"{prefix}{type(metric).__name__}({settings})"


def record_text(run: dict[str, Any]) -> str:
    """The record as lines "name: value"; what is nested is indented."""
    order = ["created", "polycode-plugins", "python", "libraries", "model", "data", "rows", "seed"]
    left_out = {"command", "commands", "sites", "samples", "files", "complete"}
    keys = [k for k in order if k in run] + [k for k in run if k not in {*order, *left_out}]
    return "\n".join(line for key in keys for line in _lines(key, run[key]))


def span(values: Sequence[int]) -> str:
    """One number, or from the smallest to the largest."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def count(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(number: int) -> str:
    """A number of parameters as people say it."""
    for unit, name in ((10**9, "billion"), (10**6, "million")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:,}"


def sites_text(sites: Sequence[str], most: int = 4) -> str:
    """The first and last of the names."""
    if len(sites) <= most:
        return ", ".join(sites)
    return f"{sites[0]} to {sites[-1]}"


def _built_in(metric: Metric) -> bool:
    return type(metric).__module__.startswith("polycode_plugins.")


def _lines(key: str, value: Any, indent: str = "") -> list[str]:
    if (key == "model" and not value) or (key == "rows" and not value["count"]):
        value = _UNRECORDED
    if isinstance(value, dict) and value:
        inner = [line for k, v in value.items() for line in _lines(str(k), v, indent + "  ")]
        return [f"{indent}{key}:", *inner]
    if isinstance(value, list) and any(isinstance(v, dict) for v in value):
        return [f"{indent}{key}:", *(f"{indent}  - {_text(v)}" for v in value)]
    return [f"{indent}{key}: {_text(value)}"]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
