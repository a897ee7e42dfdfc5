"""Directions of one's own on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from polycode_plugins.commands.main import main
from polycode_plugins.errors import DataError
from polycode_plugins.explainers.units.directions import read_directions


def test_rows_are_read_as_they_are(tmp_path):
    matrix = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    np.save(tmp_path / "d.npy", matrix)
    save_file(
        {"W_dec": torch.from_numpy(matrix), "b": torch.zeros(5)}, tmp_path / "one.safetensors"
    )
    save_file(
        {"W_dec": torch.from_numpy(matrix), "W_enc": torch.zeros(5, 3)},
        tmp_path / "two.safetensors",
    )
    for source in ("d.npy", "one.safetensors", "two.safetensors:W_dec"):
        units = read_directions(str(tmp_path / source))
        assert np.array_equal(units.directions.numpy(), matrix)
        assert units.kind == "direction"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.npy", "no file"),
        ("two.safetensors", r"holds 2 matrices; say which .*:NAME \(W_dec, W_enc\)"),
        ("two.safetensors:W_dek", "did you mean 'W_dec'"),
        ("pickle.npy", "cannot be read as .npy"),
        ("words.npy", "directions are real numbers"),
        ("damaged.safetensors", "cannot be read as safetensors"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path, source, message):
    save_file({"W_dec": torch.ones(2, 2), "W_enc": torch.ones(2, 2)}, tmp_path / "two.safetensors")
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}]), allow_pickle=True)
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match=message):
        read_directions(str(tmp_path / source))


def test_they_are_compared_beside_neurons(tmp_path, capsys):
    width = 512
    np.save(tmp_path / "d.npy", np.eye(width, dtype=np.float32)[:2])
    arguments = ["compare", "--sites", "blocks.2.mlp.hook_post", "--limit", "250", "--quiet"]
    chosen = ["--units", "neuron", "--n-units", "2", "--directions", str(tmp_path / "d.npy")]
    assert main([*arguments, *chosen, "--json", "--no-judge"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["kind"] for r in rows] == ["neuron"] * 2 + ["direction"] * 2
