"""GGUF files: dequantised, said so, and read the same by every adapter of language models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from capture_helpers import streamed
from tiny_gguf import write_gguf
from tiny_models import LAYERS, WIDTH, tiny_tokenizer

import polycode_plugins as pc
from polycode_plugins.adapters.base import DataOptions
from polycode_plugins.adapters.gguf import gguf_file, read_gguf, write_folder

TEXTS = ["hello world this is a test of tiny models", "quick models are tiny and quick"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    path = tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf"
    return path, write_gguf(path)


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("transformer-lens", "blocks.{}.hook_out"),
        ("transformers", "model.layers.{}"),
        ("nnsight", "model.model.layers.{}"),
    ],
)
def test_the_dequantised_model_is_read(tiny, name, site):
    path, model = tiny
    adapter = pc.load(path, name)
    options = DataOptions(batch_size=16, context=8)
    (batch,) = adapter.batches(TEXTS, options)
    with torch.no_grad():
        plain = model(**batch.inputs, output_hidden_states=True).hidden_states
    sites = [site.format(i) for i in range(LAYERS - 1)]  # the last one is normalised in `plain`
    got = streamed(adapter, TEXTS, sites, batch_size=16, context=8)
    counts = batch.mask
    for i, key in enumerate(sites):
        assert got[key].shape[-1] == WIDTH
        torch.testing.assert_close(got[key], plain[i + 1][counts], atol=1e-4, rtol=1e-4)


def test_the_record_says_what_was_dequantised(tiny, tmp_path):
    path, _ = tiny
    analysis = pc.analyze(path, TEXTS * 4, "spectrum", limit=4, context=8, out=tmp_path / "run")
    model = analysis.run["model"]
    assert model["gguf"] == path.name
    assert set(model["dequantised_from"]) == {"Q8_0", "F32"}
    assert sum(model["dequantised_from"].values()) == model["parameters"]
    assert model["dtype"] == "float32"
    saved = json.loads((tmp_path / "run" / "run.json").read_text())
    assert saved["model"]["dequantised_from"] == model["dequantised_from"]


def test_files_beside_it_do_not_change_what_is_read(tiny, tmp_path):
    """transformers would read the tokenizer.json there, and lose all special tokens."""
    path, _ = tiny
    copy = shutil.copy(path, tmp_path / path.name)
    write_folder(Path(copy), tmp_path)
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= {
        p.name for p in tmp_path.iterdir()
    }
    config = json.loads((tmp_path / "config.json").read_text())
    assert "quantization_config" not in config
    _, tokenizer, _ = read_gguf(Path(copy), torch.float32)
    assert tokenizer.all_special_tokens == ["<|endoftext|>"]
    assert tokenizer.chat_template


def test_a_written_folder_is_the_same_model(tiny, tmp_path):
    path, model = tiny
    write_folder(path, tmp_path)
    again = pc.load(tmp_path, "transformers")
    for (name, a), b in zip(
        model.state_dict().items(), again.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    text = "hello world"
    assert again.tokenizer(text)["input_ids"] == tiny_tokenizer()(text)["input_ids"]


def test_the_dtype_that_is_asked_for(tiny):
    adapter = pc.load(tiny[0], "transformers", dtype="bfloat16")
    assert next(adapter.model.parameters()).dtype == torch.bfloat16


def test_a_folder_with_one_file_is_that_file(tiny, tmp_path):
    shutil.copy(tiny[0], tmp_path / "one.gguf")
    assert gguf_file(tmp_path) == tmp_path / "one.gguf"
    assert pc.load(tmp_path).describe()["gguf"] == "one.gguf"
    shutil.copy(tiny[0], tmp_path / "two.gguf")
    with pytest.raises(pc.ModelError, match=r"2 GGUF files; name the one to read.*one\.gguf"):
        pc.load(tmp_path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(pc.ModelError, match="does not exist; check the path"):
        pc.load(tmp_path / "missing.gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and then nothing that a parser would take")
    with pytest.raises(pc.ModelError, match=r"GGUF file .* does not load"):
        pc.load(broken)
    part = tmp_path / "model-00001-of-00002.gguf"
    part.write_bytes(b"")
    with pytest.raises(pc.ModelError, match="one of several parts; join them first"):
        pc.load(part)


def test_terminal_and_report_say_so(tiny, tmp_path, capsys):
    from polycode_plugins.commands.main import main

    texts = tmp_path / "texts.txt"
    texts.write_text(" ".join(TEXTS * 20))
    out = tmp_path / "run"
    command = ["analyze", "--model", str(tiny[0]), "--text", str(texts), "--dtype", "float32"]
    assert main([*command, "--device", "cpu", "--context", "8", "--out", str(out), "--quiet"]) == 0
    # In Q8_0 are the embedding, 9600, and 6144 of each block; in F32 the head and 1600 of each.
    note = "The weights were dequantised from tiny.Q8_0.gguf (68% Q8_0, 32% F32)"
    assert f"model: {note}" in capsys.readouterr().err
    assert note in (out / "report.html").read_text()
    assert main([*command, "--option", "dtype=float32"]) == 2
    assert "--dtype and --option dtype=... say the same" in capsys.readouterr().err
