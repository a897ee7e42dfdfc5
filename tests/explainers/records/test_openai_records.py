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


@pytest.mark.slow
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
        ({"random_sample": []}, "0 random records"),
        ({"most_positive_activation_records": None}, "no NeuronRecord"),
        ({"random_sample": [{"tokens": ["a"], "activations": [1, 2]}]}, "1 tokens and 2 values"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path, change, message):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**neuron_record(), **change}))
    with pytest.raises(DataError, match=message):
        read_neuron_records(path)
