"""What can be said of a Hugging Face name or folder before anything is loaded from it."""

from __future__ import annotations

from pathlib import Path

import torch

from polycode_plugins.errors import ModelError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def check_pretrained(model: str | Path) -> bool:
    """Whether `model` is a local folder rather than a name on the hub.

    Raises:
        ModelError: for a folder that does not exist or lacks a configuration or a tokenizer; the
            libraries would take such a one and read every text as nothing, or ask the hub for it.
    """
    folder, shown = Path(model), repr(str(model))
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"the folder {shown} has no config.json, so it is not a model in Hugging Face "
                "format; save one with save_pretrained"
            )
        if not any((folder / name).is_file() for name in TOKENIZER_FILES):
            raise ModelError(
                f"the folder {shown} has no tokenizer files; save the tokenizer there too "
                "(tokenizer.save_pretrained), since every text would be read as nothing"
            )
        return True
    text = str(model)
    if text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise ModelError(f"the folder {shown} does not exist; check the path")
    return False


def dtype_named(name: str) -> torch.dtype:
    """The floating-point type called `name`.

    Raises:
        ModelError: for any other name.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ModelError(f"unknown dtype {name!r}; use float32, bfloat16 or float16")
    return dtype
