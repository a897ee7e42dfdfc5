"""Weights in llama.cpp's format, GGUF, as models of transformers: dequantised, and said so."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from polycode_plugins.adapters.pretrained import quiet, short
from polycode_plugins.errors import ModelError
from polycode_plugins.plugins import cause, missing_extra

SUFFIX = ".gguf"
_SHARD = "-of-"  # model-00001-of-00003.gguf


def gguf_file(model: str | Path) -> Path | None:
    """The GGUF file that `model` names: itself, or the only one in a folder without config.json.

    Raises:
        ModelError: for a file that does not exist, and a folder with several.
    """
    path = Path(model)
    if path.suffix.lower() == SUFFIX:
        if not os.path.isfile(path):
            raise ModelError(f"the file {str(model)!r} does not exist; check the path")
        return path
    if not os.path.isdir(path) or (path / "config.json").is_file():
        return None
    found = sorted(p for p in path.iterdir() if p.suffix.lower() == SUFFIX)
    if len(found) > 1:
        raise ModelError(
            f"the folder {str(model)!r} has {len(found)} GGUF files; name the one to read, for "
            f"example {str(found[0])!r}"
        )
    return found[0] if found else None


def read_gguf(path: Path, dtype: Any, **options: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Model with language head, tokenizer, and what to record of the file.

    The weights are dequantised to `dtype`: they are the rounded ones, which is what llama.cpp
    computes with, and not those that were trained.

    Args:
        path: the file.
        dtype: a floating-point type of torch.
        options: further arguments of `from_pretrained` (`device_map`, ...).

    Raises:
        ModelError: for a file of several parts, and one that transformers does not read.
        PluginError: when transformers or gguf is not installed.
    """
    if _SHARD in path.stem:
        raise ModelError(
            f"{str(path)!r} is one of several parts; join them first (llama-gguf-split --merge)"
        )
    with quiet(), redirect_stderr(io.StringIO()):  # a bar that no setting turns off
        try:
            import gguf  # noqa: F401 - transformers reads the file with it
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ModuleNotFoundError as error:
            package = "gguf" if error.name == "gguf" else "transformers"
            raise missing_extra(package, "gguf", "reading a GGUF file") from error
        where = {"gguf_file": path.name, "trust_remote_code": False}
        try:
            with _alone(path) as folder:
                model = AutoModelForCausalLM.from_pretrained(
                    folder, dtype=dtype, **where, **options
                )
                tokenizer = AutoTokenizer.from_pretrained(folder, **where)
        except Exception as error:  # the parsers raise their own
            raise ModelError(
                f"the GGUF file {str(path)!r} does not load ({short(cause(error))}); transformers "
                "reads the architectures that its documentation lists under GGUF, others need the "
                "Hugging Face folder the file was made from"
            ) from error
    _forget_quantisation(model)
    model.eval()
    types = quantisation(path)
    note = (
        f"The weights were dequantised from {path.name} ({types_text(types)}): they are the "
        "rounded ones, not those that were trained, and so are all numbers here."
    )
    record = {"gguf": path.name, "dequantised_from": types, "notes": [note]}
    return model, tokenizer, record


@contextmanager
def _alone(path: Path) -> Iterator[str]:
    """A folder with nothing in it but that file.

    Beside a tokenizer.json transformers takes it for the one in the file, without its special
    tokens, and beside a config.json that for the configuration.
    """
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, path.name)
        try:
            link.symlink_to(path.resolve())
        except OSError:  # a file system without links
            shutil.copyfile(path, link)
        yield folder


def quantisation(path: Path) -> dict[str, int]:
    """How many weights of a GGUF file have which type, the most frequent first."""
    import gguf

    counts: dict[str, int] = {}
    for tensor in gguf.GGUFReader(str(path)).tensors:
        name = tensor.tensor_type.name
        counts[name] = counts.get(name, 0) + int(tensor.n_elements)
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def types_text(types: Mapping[str, int]) -> str:
    """The types that hold a hundredth of the weights or more, with their share."""
    total = sum(types.values())
    shares = {name: count / total for name, count in types.items() if count >= total / 100}
    return ", ".join(f"{share:.0%} {name}" for name, share in shares.items())


def write_folder(path: Path, folder: Path) -> None:
    """Write a GGUF file as a folder in Hugging Face format: float32 safetensors and tokenizer."""
    import torch

    model, tokenizer, _ = read_gguf(path, torch.float32)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _forget_quantisation(model: Any) -> None:
    """Take off what says that the weights are quantised: they no longer are."""
    model.hf_quantizer = None
    for owner, name in (
        (model, "quantization_method"),
        (model, "is_quantized"),
        (model.config, "quantization_config"),
    ):
        if name in vars(owner):
            delattr(owner, name)
