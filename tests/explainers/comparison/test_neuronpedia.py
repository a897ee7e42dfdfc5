"""The export in Neuronpedia's format."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from planted import NEURONS, planted_comparison, toy

from polycode_plugins.errors import DataError
from polycode_plugins.explainers import directions
from polycode_plugins.explainers.comparison import neuronpedia


def test_the_export_is_json_lines_without_failures(tmp_path):
    lines = toy().export(tmp_path / "x.jsonl").read_text().splitlines()
    assert len(lines) == len(toy())
    first = json.loads(lines[0])
    assert {"modelId", "layer", "index", "description", "typeName", "explanationModelName"} <= set(
        first
    )
    assert (first["layer"], first["index"], first["unit"]) == ("0-read-neuron", "0", "neuron 0")
    assert {s["name"] for s in first["scores"]} >= {"correlation", "detection"}


def rows(comparison, path, **names):
    return [json.loads(line) for line in comparison.export(path, **names).read_text().splitlines()]


def keys(lines):
    return [(line["modelId"], line["layer"], line["index"]) for line in lines]


def renamed(comparison, site, model="gpt2", **origins):
    """The comparison as of another site and model, with the origin of its directions by kind."""
    units = tuple(
        dataclasses.replace(
            unit,
            evaluation=dataclasses.replace(
                unit.evaluation, records=dataclasses.replace(unit.evaluation.records, site=site)
            ),
        )
        for unit in comparison
    )
    directions = {
        (site, kind, weights): dataclasses.replace(
            group, origin={**group.origin, **origins.get(kind, {})}
        )
        for (_, kind, weights), group in comparison.directions.items()
    }
    run = {**comparison.run, "model": {"name": model}}
    return dataclasses.replace(comparison, units=units, directions=directions, run=run)


def negated(comparison):
    """As if the lower sides of all units had been explained."""
    units = tuple(
        dataclasses.replace(
            unit,
            evaluation=dataclasses.replace(
                unit.evaluation, records=dataclasses.replace(unit.evaluation.records, sign=-1)
            ),
        )
        for unit in comparison
    )
    return dataclasses.replace(comparison, units=units)


def test_neurons_have_the_layers_number_and_nothing_else_has(tmp_path):
    """Neuronpedia's unit gpt2/8/3 is the neuron as it is, of the layer's MLP, and no other unit."""
    made = renamed(planted_comparison(signs="both", judge=False), "blocks.8.mlp.hook_post")
    lines = rows(made, tmp_path / "x")
    assert len(set(keys(lines))) == len(lines) == 3 * NEURONS  # negative sides are silent
    neurons = [line for line in lines if line["kind"] == "neuron" and line["sign"] > 0]
    assert keys(neurons) == [("gpt2", "8", str(i)) for i in range(NEURONS)]
    assert {line["layer"] for line in lines} == {
        "8",
        "8-mlp-post-projection-seed0",
        "8-mlp-post-projection-seed0-negative",
    }
    resid = rows(renamed(toy(), "blocks.8.hook_resid_pre"), tmp_path / "y")
    assert "8" not in {line["layer"] for line in resid}
    negative = renamed(negated(toy()), "blocks.8.mlp.hook_post")
    assert rows(negative, tmp_path / "n")[0]["layer"] == "8-mlp-post-neuron-negative"
    down = rows(renamed(toy(), "model.layers.3.mlp.down_proj:in"), tmp_path / "z")
    assert down[0]["layer"] == "3"


def test_features_have_the_source_that_their_folder_says(tmp_path):
    known = {"neuronpedia_id": "gpt2-small/8-res-jb", "autoencoder": "relu"}
    made = renamed(toy(), "blocks.8.hook_resid_pre", "openai-community/gpt2", neuron=known)
    lines = rows(made, tmp_path / "x")
    assert keys(lines)[3] == ("gpt2-small", "8-res-jb", "3")
    assert lines[-1]["modelId"] == "gpt2"
    assert {line["modelId"] for line in rows(made, tmp_path / "x", model_id="Other")} == {"other"}
    nameless = renamed(
        toy(), "blocks.8.hook_resid_pre", neuron={"autoencoder": "relu", "folder": "My SAE"}
    )
    assert rows(nameless, tmp_path / "y")[0]["layer"] == "8-resid-pre-neuron-my-sae"


def test_units_without_numbers_are_counted_and_two_of_one_key_refused(tmp_path):
    named = directions(torch.eye(NEURONS)[:2] + 0.1, ["truth", "number 1"], kind="probe")
    made = planted_comparison(units=named, judge=False)
    assert [line["index"] for line in rows(made, tmp_path / "x")] == ["0", "1"]
    # Planted: two sites whose names differ in what a source's name cannot hold.
    units = made.units + renamed(made, "READ").units
    with pytest.raises(DataError, match="would both be unit 0 of '0-read-probe' at Neuronpedia"):
        dataclasses.replace(made, units=units).export(tmp_path / "y")


def test_bodies_of_an_upload_are_what_neuronpedia_takes(tmp_path):
    """The limits of its feature/upload-batch, written anew from its schema."""
    long = "very long " * 80
    units = tuple(
        dataclasses.replace(
            unit,
            evaluation=dataclasses.replace(
                unit.evaluation,
                explanation=dataclasses.replace(unit.evaluation.explanation, text=long),
            ),
        )
        for unit in toy()
    )
    made = dataclasses.replace(toy(), units=units * 10)  # as if there were so many
    monkey = {i: ("m", "0-s", i) for i in range(len(made))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neuronpedia, "keys_of", lambda *_: monkey)
        path = made.export_features(tmp_path / "x.jsonl", source_set="s")
    bodies = [json.loads(line) for line in path.read_text().splitlines()]
    assert [len(body["features"]) for body in bodies] == [128, 32]
    for body in bodies:
        assert body.keys() == {"modelId", "source", "features"}
        indices = [feature["index"] for feature in body["features"]]
        assert len(set(indices)) == len(indices)
        for feature in body["features"]:
            assert type(feature["index"]) is int
            assert 0 <= feature["index"] <= 10_000_000
            assert feature.keys() == {"index", "explanations", "activations"}
            (said,) = feature["explanations"]
            assert said.keys() == {"text", "methodName", "modelName"}
            assert 1 <= len(said["text"]) <= 512
            assert said["text"].endswith("…")
            for record in feature["activations"]:
                assert record.keys() == {"tokens", "values"}
                assert 1 <= len(record["tokens"]) == len(record["values"]) <= 1024
                assert all(record["tokens"])
    path = toy().export_features(tmp_path / "y", source_set="res-8")
    real = [json.loads(line) for line in path.read_text().splitlines()]
    sources = ["0-res-8-neuron", "0-res-8-projection", "0-res-8-projection-negative"]
    assert sorted(body["source"] for body in real) == sources
    assert real[0]["features"][0]["explanations"][0]["methodName"] is None
