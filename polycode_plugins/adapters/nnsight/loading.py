"""Loading a model by name or from a folder with nnsight."""

from __future__ import annotations

from typing import Any

from polycode_plugins.adapters.pretrained import (
    check_hub,
    check_pretrained,
    check_tokenizer,
    check_weights,
    device_named,
    dtype_named,
    quiet,
    short,
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
    name: str, tokenizer: Any, device: str | None, dtype: str | None, *, weights: bool
) -> Any:
    """nnsight's model for a hub name or a local folder, with or without its weights.

    Raises:
        ModelError: when it cannot be loaded, in one sentence.
        PluginError: when nnsight is not installed.
    """
    is_folder = check_pretrained(name)
    options: dict[str, Any] = {} if device is None else {"device": device_named(device)}
    if dtype is not None:
        options["dtype"] = dtype_named(dtype)
    nnsight = nnsight_library()
    if not is_folder:
        check_hub(name)
    with quiet() as reports:
        try:
            from transformers import AutoTokenizer

            # Passed on, as nnsight does not find the tokenizer of a local folder without weights.
            tokenizer = AutoTokenizer.from_pretrained(name) if tokenizer is None else tokenizer
            model = nnsight.TransformersModel(
                name, task="text-generation", tokenizer=tokenizer, dispatch=weights, **options
            )
        except Exception as error:  # the hub, the file system and the parsers raise their own
            raise ModelError(
                f"the model {name!r} does not load ({short(cause(error))}); give the name of a "
                "model on the Hugging Face hub, or a folder in its format"
            ) from error
    check_weights(name, reports)
    check_tokenizer(name, tokenizer)
    return model


def load_weights(model: Any) -> None:
    """Load the weights of a model that nnsight holds without them.

    Raises:
        ModelError: when they do not load.
    """
    try:
        model.dispatch()
    except Exception as error:  # the hub, the file system and the parsers raise their own
        raise ModelError(
            f"the weights of this {type(model).__name__} do not load ({short(cause(error))}); "
            "check the network and the disk"
        ) from error
