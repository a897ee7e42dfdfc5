"""Tensors are written one at a time into files that safetensors reads, and read the same way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from polycode_plugins.errors import StateError
from polycode_plugins.files import tensors


def samples() -> dict[str, torch.Tensor]:
    made = {
        f"{dtype}/{len(shape)}/{'x'.join(map(str, shape))}": (torch.rand(shape) * 100).to(dtype)
        for dtype in tensors._TYPES
        for shape in ((), (0, 3), (3, 5), (2, 1, 7))
    }
    return made | {"turned": torch.randn(4, 6).T}


def same(found, expected) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name], tensor)


def test_safetensors_reads_what_is_written(tmp_path: Path):
    made = samples()
    tensors.write(tmp_path / "a", made)
    same(load_file(tmp_path / "a"), made)
    same(tensors.Saved(tmp_path / "a"), made)
    tensors.write(tmp_path / "b", tensors.Saved(tmp_path / "a").lazy())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    tensors.write(tmp_path / "none", {})
    assert load_file(tmp_path / "none") == {}


def test_a_lazy_tensor_has_to_keep_its_word(tmp_path: Path):
    lazy = tensors.Lazy(torch.float32, (3,), lambda: torch.zeros(4))
    with pytest.raises(StateError, match="changed while it was saved"):
        tensors.write(tmp_path / "a", {"x": lazy})
    with pytest.raises(StateError, match="complex64"):
        tensors.write(tmp_path / "a", {"x": torch.zeros(2, dtype=torch.complex64)})


def test_a_damaged_file_is_said(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"\xff" * 100)
    with pytest.raises(StateError, match="is damaged"):
        tensors.Saved(tmp_path / "a")
    tensors.write(tmp_path / "b", {"x": torch.arange(9)})
    saved = tensors.Saved(tmp_path / "b")
    with pytest.raises(KeyError):
        saved["nothing"]
    whole = (tmp_path / "b").read_bytes()
    (tmp_path / "b").write_bytes(whole[:-3])
    with pytest.raises(StateError, match="ends within 'x'"):
        saved["x"]
    for broken in (whole[:-3], whole.replace(b"[9]", b"[8]"), whole.replace(b"I64", b"Q64")):
        (tmp_path / "c").write_bytes(broken)
        with pytest.raises(StateError, match="is damaged"):
            tensors.Saved(tmp_path / "c")
