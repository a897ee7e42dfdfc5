"""Loading a model by name or from a folder with nnsight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from polycode_plugins.adapters.gguf import gguf_file, read_gguf
from polycode_plugins.adapters.pretrained import (
    CODE_NOTE,
    check_hub,
    check_pretrained,
    check_tokenizer,
    check_weights,
    code_refused,
    device_named,
    dtype_named,
    needs_code,
    quiet,
    short,
    without_questions,
)
from polycode_plugins.errors import ModelError
from polycode_plugins.plugins import cause, missing_extra


def nnsight_library() -> Any:
    """The imported library.

    Raises:
        PluginError: when it is not installed.
    """
    try:
        import nnsight
    except ModuleNotFoundError as error:
        if error.name != "nnsight":
            raise
        raise missing_extra("nnsight", "nnsight", "the nnsight adapter") from error
    return nnsight


def load_model(
    name: str,
    tokenizer: Any,
    device: str | None,
    dtype: str | None,
    device_map: Any = None,
    *,
    weights: bool,
    trust_remote_code: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """nnsight's model for a hub name, a local folder or a GGUF file, with or without its weights.

    The second value is what to record of a GGUF file.

    Raises:
        ModelError: when it cannot be loaded, in one sentence.
        PluginError: when nnsight is not installed.
    """
    file = gguf_file(name)
    is_folder = file is not None or check_pretrained(name)
    options: dict[str, Any] = {} if device is None else {"device": device_named(device)}
    if dtype is not None:
        options["dtype"] = dtype_named(dtype)
    if device_map is not None:
        options["device_map"] = device_map
    nnsight = nnsight_library()
    if file is not None:
        return _from_gguf(nnsight, file, tokenizer, options)
    if not is_folder:
        check_hub(name)
    with quiet() as reports:
        try:
            from transformers import AutoTokenizer

            # Passed on, as nnsight does not find the tokenizer of a local folder without weights.
            if tokenizer is None:
                tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
            model = nnsight.TransformersModel(
                name,
                task="text-generation",
                tokenizer=tokenizer,
                dispatch=weights,
                trust_remote_code=trust_remote_code,
                **options,
            )
        except Exception as error:  # the hub, the file system and the parsers raise their own
            if needs_code(error) and not trust_remote_code:
                raise code_refused(name) from error
            raise ModelError(
                f"the model {name!r} does not load ({short(cause(error))}); give the name of a "
                "model on the Hugging Face hub, or a folder in its format"
            ) from error
    check_weights(name, reports)
    check_tokenizer(name, tokenizer)
    return model, {"notes": [CODE_NOTE]} if trust_remote_code else {}


def _from_gguf(
    nnsight: Any, file: Path, tokenizer: Any, options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    device = options.pop("device", None)
    dtype = options.pop("dtype", torch.float32)
    loaded, own, recorded = read_gguf(file, dtype, **options)
    if device is not None:
        loaded = loaded.to(device)
    tokenizer = own if tokenizer is None else tokenizer
    return nnsight.TransformersModel(loaded, tokenizer=tokenizer), recorded


def load_weights(model: Any) -> None:
    """Load the weights of a model that nnsight holds without them.

    Raises:
        ModelError: when they do not load.
    """
    try:
        with without_questions():
            model.dispatch()
    except Exception as error:  # the hub, the file system and the parsers raise their own
        raise ModelError(
            f"the weights of this {type(model).__name__} do not load ({short(cause(error))}); "
            "check the network and the disk"
        ) from error
