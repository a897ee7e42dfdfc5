"""Loading a model by name or from a folder with whatever TransformerLens is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
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
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.errors import ModelError, PluginError
from polycode_plugins.plugins import cause, missing_extra


def load_model(model: str | Path, device: str | None, dtype: str | None) -> Any:
    """A TransformerBridge (TransformerLens 3 and 4) or HookedTransformer (2) with its tokenizer.

    The weights are as they were saved: nothing is folded or centred.

    Args:
        model: a folder in Hugging Face format, or a name on the Hugging Face hub.
        device: where to put it; TransformerLens chooses when None.
        dtype: "float32" (also when None), "bfloat16", ...

    Raises:
        ModelError: when it cannot be loaded, in one sentence.
        PluginError: when TransformerLens is not installed or broken.
    """
    is_folder = check_pretrained(model)
    options: dict[str, Any] = {"dtype": dtype_named(dtype or "float32")}
    if device is not None:
        options["device"] = device_named(device)
    with quiet():
        boot = _boot()
    with quiet() as reports, undisturbed():  # random weights are drawn before the saved ones
        if not is_folder:
            check_hub(_official(str(model)))
        try:
            loaded = boot(str(model), **options)
        except Exception as error:  # the hub, the file system and the parsers raise their own
            raise ModelError(
                f"the model {str(model)!r} does not load ({short(cause(error))}); give the name "
                "of a model on the Hugging Face hub, or a folder in its format"
            ) from error
    check_weights(str(model), reports)
    check_tokenizer(str(model), getattr(loaded, "tokenizer", None))
    return loaded


def library_version() -> str:
    """The version of TransformerLens, "unknown" where it comes without metadata."""
    try:
        return version("transformer-lens")
    except PackageNotFoundError:
        return "unknown"


def _boot() -> Any:
    try:
        import transformer_lens
    except ModuleNotFoundError as error:
        if error.name == "transformer_lens":
            what = "loading a language model by name"
            raise missing_extra("transformer-lens", "transformer-lens", what) from error
        raise PluginError(f"transformer-lens does not import: {cause(error)}") from error
    except Exception as error:  # a library it needs may be broken in any way
        raise PluginError(f"transformer-lens does not import: {cause(error)}") from error
    try:
        from transformer_lens.model_bridge import TransformerBridge
    except ModuleNotFoundError:
        return transformer_lens.HookedTransformer.from_pretrained_no_processing
    return TransformerBridge.boot_transformers


def _official(name: str) -> str:
    """The name on the hub of what TransformerLens has a short name for ("gpt2-small")."""
    from transformer_lens.supported_models import MODEL_ALIASES

    return next((official for official, short in MODEL_ALIASES.items() if name in short), name)
