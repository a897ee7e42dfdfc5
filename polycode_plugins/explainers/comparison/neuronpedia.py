"""Explanations as JSON lines in the manner of Neuronpedia's explanation export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polycode_plugins.files import storage
from polycode_plugins.files.guards import whole_number

if TYPE_CHECKING:
    from polycode_plugins.explainers.comparison.outcome import ComparedUnit, Comparison


def export(comparison: Comparison, path: Path) -> Path:
    """One line for each unit that has an explanation and is of the network as it is.

    modelId, layer (the site's name), index (the unit's number, or its name where it has none),
    description, typeName, explanationModelName, scores [{name, value, simulator, protocol}]: a
    score that is undefined is left out. Units whose explanation failed have no line.

    Raises:
        StateError: when the file cannot be written.
    """
    lines = [
        json.dumps(_line(comparison, unit), ensure_ascii=True)
        for unit in comparison
        if unit.weights == "trained" and unit.evaluation.explanation.state == "ok"
    ]
    return storage.write_text(path, "".join(line + "\n" for line in lines))


def _line(comparison: Comparison, unit: ComparedUnit) -> dict[str, Any]:
    run, made = comparison.run, unit.evaluation
    number = unit.name.split(" ")[1] if " " in unit.name else ""
    explainer = run["explainer"]
    return {
        "modelId": _model_id(run["model"]),
        "layer": unit.site,
        "index": unit.name if (index := whole_number(number)) is None else index,
        "kind": unit.kind,
        "sign": made.records.sign,
        "description": made.explanation.text,
        "typeName": explainer["explainer"],
        "explanationModelName": explainer.get("model", explainer["explainer"]),
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


def _model_id(model: Mapping[str, Any]) -> str:
    """A model's name, of a folder the last part: where it lies on this machine is nobody's."""
    name = str(model.get("name") or model.get("type", ""))
    return Path(name).name if Path(name).is_absolute() else name
