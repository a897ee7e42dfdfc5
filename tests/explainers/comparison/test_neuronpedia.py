"""The export in Neuronpedia's format."""

from __future__ import annotations

import json

from planted import toy


def test_the_export_is_json_lines_without_failures(tmp_path):
    lines = toy().export(tmp_path / "x.jsonl").read_text().splitlines()
    assert len(lines) == len(toy())
    first = json.loads(lines[0])
    assert {"modelId", "layer", "index", "description", "typeName", "explanationModelName"} <= set(
        first
    )
    assert (first["layer"], first["index"], first["unit"]) == ("0-read-neuron", "0", "neuron 0")
    assert {s["name"] for s in first["scores"]} >= {"correlation", "detection"}
