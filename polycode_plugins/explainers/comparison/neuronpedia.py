"""Explanations for Neuronpedia: rows as it keeps and exports them, and bodies as it is sent them.

There a unit is (modelId, layer, index), where layer is the id of a source: the number of the layer
for the neurons of its MLP as they are, "8-res-jb" for the features of an autoencoder, which its
folder knows as its neuronpedia_id. What is neither has a source of its own name here, so that no
key stands for two units: a projection is no neuron, and neither is a neuron's negative side.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.base import Record, direction_of
from polycode_plugins.files import storage

if TYPE_CHECKING:
    from polycode_plugins.explainers.comparison.outcome import ComparedUnit, Comparison

#: What POST /api/feature/upload-batch takes (hijohnnylin/neuronpedia, 2025-03).
FEATURES, TEXT, TOKENS, INDEX = 128, 512, 1024, 10_000_000
_NEURONS = re.compile(r"(^|\.)mlp\.(hook_post|(c_proj|down_proj|dense_4h_to_h|fc2|w2):in)$")
_NUMBER = re.compile(r" (\d+)$")
_LAYER = re.compile(r"(?<![\w])(\d+)(?![\w])")

Key = tuple[str, str, int]


def export(comparison: Comparison, path: Path, model_id: str | None = None) -> Path:
    """One line for each unit that has an explanation and is of the network as it is.

    modelId, layer, index (the unit's number, as a string), description, typeName,
    explanationModelName, as Neuronpedia's own exports have them, and beside these site, unit, kind,
    sign and scores [{name, value, simulator, protocol}]: a score that is undefined is left out.
    Units whose explanation failed have no line.

    Args:
        comparison: to export.
        path: of the file.
        model_id: the model's name at Neuronpedia ("gpt2-small"); by default what an autoencoder's
            folder says, or the last part of the model's name.

    Raises:
        DataError: where two units would have one key.
        StateError: when the file cannot be written.
    """
    keys = keys_of(comparison, model_id)
    lines = [
        json.dumps(_row(comparison, u, keys[i]), ensure_ascii=True) for i, u in _said(comparison)
    ]
    return storage.write_text(path, "".join(line + "\n" for line in lines))


def export_features(
    comparison: Comparison,
    path: Path,
    *,
    model_id: str | None = None,
    source_set: str | None = None,
    method: str | None = None,
) -> Path:
    """One body a line for Neuronpedia's POST /api/feature/upload-batch: 128 units of one source.

    Each unit has its explanation, and the tokens and activations of its texts. What the interface
    does not take is left out: scores, texts longer than 1024 tokens, and what of an explanation is
    beyond its 512th character, where it ends in "…".

    Args:
        comparison: to export.
        path: of the file.
        model_id: see `export`.
        source_set: the name of the source set that was created there, "res-16k"; with several
            kinds of units each has its own, "res-16k-neuron". By default the sources of `export`.
        method: the name of the explaining method there; names that it does not know are refused.

    Raises:
        DataError: where two units would have one key.
        StateError: when the file cannot be written.
    """
    keys = keys_of(comparison, model_id, source_set)
    model = comparison.run["explainer"].get("model")
    by_source: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for i, unit in _said(comparison):
        texts = [_activations(r) for r in _records(unit) if _fits(r)]
        if texts:
            text = unit.evaluation.explanation.text
            explanation = {
                "text": text if len(text) <= TEXT else f"{text[: TEXT - 1]}…",
                "methodName": method,
                "modelName": None if model is None else str(model).lower(),
            }
            made = {"index": keys[i][2], "explanations": [explanation], "activations": texts}
            by_source.setdefault(keys[i][:2], []).append(made)
    lines = [
        json.dumps({"modelId": m, "source": s, "features": f[start : start + FEATURES]})
        for (m, s), f in by_source.items()
        for start in range(0, len(f), FEATURES)
    ]
    return storage.write_text(path, "".join(line + "\n" for line in lines))


def keys_of(
    comparison: Comparison, model_id: str | None = None, source_set: str | None = None
) -> dict[int, Key]:
    """(modelId, layer, index) of each unit of the network as it is, by its place.

    Raises:
        DataError: where two units would have one.
    """
    groups: dict[tuple[str, str, int], list[int]] = {}
    for i, unit in enumerate(comparison):
        if unit.weights == "trained":
            group = unit.site, unit.kind, unit.evaluation.records.sign
            groups.setdefault(group, []).append(i)
    several = len({kind for _, kind, _ in groups}) > 1
    keys: dict[int, Key] = {}
    for (site, kind, sign), places in groups.items():
        origin = _origin(comparison, site, kind)
        known = str(origin.get("neuronpedia_id") or "")
        model, _, source = known.partition("/")
        if not source:
            model, source = _model_id(comparison.run["model"]), _source(site, kind, sign, origin)
        if source_set is not None:
            name = f"{source_set}-{_slug(kind)}" if several else source_set
            source = f"{_layer(site)}-{name}{'-negative' if sign < 0 else ''}"
        names = [direction_of(comparison.units[i].evaluation.records) for i in places]
        for i, number in zip(places, _numbers(names), strict=True):
            keys[i] = (model_id or model).lower(), source.lower(), number
    _check(comparison, keys)
    return keys


def _said(comparison: Comparison) -> Iterator[tuple[int, ComparedUnit]]:
    """Units with an explanation, of the network as it is, and their places."""
    for i, unit in enumerate(comparison):
        if unit.weights == "trained" and unit.evaluation.explanation.state == "ok":
            yield i, unit


def _row(comparison: Comparison, unit: ComparedUnit, key: Key) -> dict[str, Any]:
    run, made = comparison.run, unit.evaluation
    explainer = run["explainer"]
    return {
        "modelId": key[0],
        "layer": key[1],
        "index": str(key[2]),
        "description": made.explanation.text,
        "typeName": explainer["explainer"],
        "explanationModelName": explainer.get("model", explainer["explainer"]),
        "site": unit.site,
        "unit": unit.name,
        "kind": unit.kind,
        "sign": made.records.sign,
        "scores": [
            {
                "name": name,
                "value": value,
                "simulator": run["simulator"]["simulator"],
                "protocol": made.records.protocol,
            }
            for name, value in made.scores.values.items()
            if value is not None
        ],
    }


def _records(unit: ComparedUnit) -> list[Record]:
    records = unit.evaluation.records
    return [r for part in (records.explain, records.calibration, records.score) for r in part.all()]


def _fits(record: Record) -> bool:
    return 0 < len(record.tokens) <= TOKENS and all(record.tokens)


def _activations(record: Record) -> dict[str, Any]:
    return {"tokens": list(record.tokens), "values": [float(v) for v in record.activations]}


def _origin(comparison: Comparison, site: str, kind: str) -> Mapping[str, Any]:
    units = comparison.directions.get((site, kind, "trained"))
    return {} if units is None else units.origin


def _source(site: str, kind: str, sign: int, origin: Mapping[str, Any]) -> str:
    """The id of a source: a layer's neurons, or a name that nothing else has."""
    if kind == "neuron" and sign > 0 and _NEURONS.search(site) and _LAYER.search(site):
        return _layer(site)
    parts = [_slug(_LAYER.sub("", site, count=1)), _slug(kind)]
    if "autoencoder" in origin:
        parts.append(_slug(str(origin.get("folder", ""))))
    elif origin.get("seed") is not None and kind != "neuron":
        parts.append(f"seed{origin['seed']}")
    if sign < 0:
        parts.append("negative")
    return "-".join([_layer(site), *filter(None, parts)])


def _layer(site: str) -> str:
    """The layer's number: the first of the site's name, and 0 where it has none."""
    found = _LAYER.search(site)
    return found[1] if found else "0"


def _slug(text: str) -> str:
    """Lower-case letters, digits and dashes."""
    plain = text.lower().removeprefix("blocks.").replace("hook_", "")
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _numbers(names: list[str]) -> list[int]:
    """A number for each name: the one it ends in, or its place where some have none."""
    found = [_NUMBER.search(name) for name in names]
    numbers = [int(m[1]) for m in found if m is not None]
    if len(set(numbers)) == len(names) and max(numbers) <= INDEX:
        return numbers
    return list(range(len(names)))


def _check(comparison: Comparison, keys: Mapping[int, Key]) -> None:
    """Raise DataError where a key stands for two units."""
    first: dict[Key, int] = {}
    for i, key in keys.items():
        other = comparison.units[first.setdefault(key, i)]
        if first[key] != i:
            unit = comparison.units[i]
            raise DataError(
                f"{other.name!r} of {other.site!r} and {unit.name!r} of {unit.site!r} would both "
                f"be unit {key[2]} of {key[1]!r} at Neuronpedia; export comparisons of one site "
                "or one kind, each with a source set of its own"
            )


def _model_id(model: Mapping[str, Any]) -> str:
    """A model's name, of a path or a repository the last part: where it lies is nobody's."""
    name = str(model.get("name") or model.get("type", ""))
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(name).name)
