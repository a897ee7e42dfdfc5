"""OpenAI's neuron records, and those of others that are none."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hostile_values import answer, broken, drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.records.openai_records import read_neuron_records
from polycode_plugins.explainers.records.protocols import (
    check_disjoint,
)


@settings(drawn, max_examples=150)
@given(st.data())
@pytest.mark.usefixtures("elsewhere")
def test_neuron_records(tmp_path_factory, data):
    def record(i: int) -> dict[str, Any]:
        return {"tokens": [f"a{i}", " b", " c"], "activations": [0.5 * i, -0.1, 1.0]}

    whole = {
        "dataclass_name": "NeuronRecord",
        "neuron_id": {"layer_index": 3, "neuron_index": 7},
        "most_positive_activation_records": [record(i) for i in range(20)],
        "random_sample": [record(100 + i) for i in range(20)],
        "random_sample_by_quantile": [[record(200 + i)] for i in range(20)],
    }
    path = tmp_path_factory.getbasetemp() / "neuron.json"
    path.write_text(json.dumps(whole))
    assert read_neuron_records(path).unit == "neuron 7"
    path.write_text(json.dumps(data.draw(broken(whole))))
    found = answer(lambda: read_neuron_records(path))
    if found is not None:
        assert all(np.isfinite(r.activations).all() for r in found.explain.all())


def neuron_record(n_top=20, n_random=15):
    def texts(n, start, high):
        return [
            {"tokens": [f"t{start + i}", " x"], "activations": [high - i / 50, 0.1]}
            for i in range(n)
        ]

    top, random = texts(n_top, 0, 9.0), texts(n_random, 100, 0.4)
    return {
        "dataclass_name": "NeuronRecord",
        "neuron_id": {"dataclass_name": "NeuronId", "layer_index": 3, "neuron_index": 41},
        "most_positive_activation_records": top,
        "random_sample": [top[2], *random],
        "random_sample_by_quantile": [],
    }


def test_openais_neuron_json_is_read_and_a_text_of_both_lists_counts_once(tmp_path):
    path = tmp_path / "41.json"
    path.write_text(json.dumps(neuron_record()))
    unit = read_neuron_records(path)
    assert (unit.unit, unit.site, unit.maximum) == ("neuron 41", "layer 3", 9.0)
    assert [r.tokens[0] for r in unit.score.top] == ["t2", "t6", "t10", "t14", "t18"]
    assert [r.tokens[0] for r in unit.score.random] == [f"t{100 + i}" for i in (1, 4, 7, 10, 13)]
    check_disjoint(unit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"random_sample": []}, "0 random records of different texts"),
        ({"most_positive_activation_records": []}, "0 top records of different texts"),
        ({"most_positive_activation_records": None}, "no NeuronRecord"),
        ({"random_sample": [{"tokens": ["a"], "activations": [1, 2]}]}, "1 tokens and 2 values"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path, change, message):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**neuron_record(), **change}))
    with pytest.raises(DataError, match=message):
        read_neuron_records(path)


def read(tmp_path, content, *inner, protocol="openai"):
    path = tmp_path.joinpath(*inner or ("x.json",))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return read_neuron_records(path, protocol)


def test_fewer_texts_than_the_protocol_takes_are_read_and_said(tmp_path):
    """Older files have 10 random texts; a text that occurs twice counts once."""
    whole = read(tmp_path, neuron_record(20, 15))
    assert whole.notes == ("1 of its texts occur again and count once",)  # a top one at random
    older = read(tmp_path, neuron_record(20, 9))
    assert [len(older.score.top), len(older.score.random)] == [5, 3]
    assert older.notes[-1] == "it has 9 random texts and the protocol takes 15"
    twice = neuron_record()
    tops = twice["most_positive_activation_records"]
    tops[7] = tops[3]
    unit = read(tmp_path, twice)
    assert [len(unit.explain.top), len(unit.score.top)] == [5, 5]
    assert unit.notes[0] == "2 of its texts occur again and count once"
    assert unit.notes[1] == "it has 19 top texts and the protocol takes 20"
    check_disjoint(unit)
    with pytest.raises(DataError, match=r"has 2 random records .* needs 3 of them"):
        read(tmp_path, neuron_record(20, 2))
    assert read(tmp_path, neuron_record(10, 0), protocol="marshall-kirchner").score.all()


def test_names_of_all_versions(tmp_path):
    for place in (
        {"neuron_id": {"layer": 3, "idx": 41}},
        {"neuron_id": {"layer": 3, "neuron": 41}},
        {"node_id": {"layer_index": 3, "index": 41}},
        {"neuron_id": None, "layer": 3, "neuron": 41},
    ):
        unit = read(tmp_path, {**neuron_record(), "neuron_id": None, **place})
        assert (unit.unit, unit.site) == ("neuron 41", "layer 3"), place
    nameless = {**neuron_record(), "neuron_id": None}
    unit = read(tmp_path, nameless, "neurons", "3", "41.json")
    assert (unit.unit, unit.site) == ("neuron 41", "layer 3")
    unit = read(tmp_path, nameless, "neurons", "first.json")
    assert (unit.unit, unit.site) == ("neuron first", "layer ?")


def test_samples_by_quantile_are_of_all_quantiles(tmp_path):
    content = neuron_record()
    content["random_sample_by_quantile"] = [
        [{"tokens": [f"q{part}", f" {i}"], "activations": [part + i / 10, 0]} for i in range(6)]
        for part in range(5)
    ]
    assert not read(tmp_path, content).score.quantile
    unit = read(tmp_path, content, protocol="fair")
    for split in (unit.explain, unit.calibration, unit.score):
        assert [r.tokens[0] for r in split.quantile] == [f"q{part}" for part in range(5)]
    check_disjoint(unit)
    assert len(unit.score.all()) == 15
    with pytest.raises(DataError, match="0 quantile records"):
        read(tmp_path, neuron_record(), protocol="fair")
