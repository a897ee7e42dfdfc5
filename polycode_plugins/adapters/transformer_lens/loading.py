"""Loading a model by name or from a folder with whatever TransformerLens is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

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
)
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.errors import ModelError, PluginError
from polycode_plugins.plugins import cause, missing_extra


def load_model(
    model: str | Path,
    device: str | None,
    dtype: str | None,
    device_map: Any = None,
    trust_remote_code: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """A TransformerBridge (TransformerLens 3 and 4) or HookedTransformer (2) with its tokenizer.

    The weights are as they were saved, of a GGUF file dequantised: nothing is folded or centred.
    The second value is what to record of a GGUF file.

    Args:
        model: a folder in Hugging Face format, a GGUF file, or a name on the Hugging Face hub.
        device: where to put it; TransformerLens chooses when None.
        dtype: "float32" (also when None), "bfloat16", ...
        device_map: how to spread it over devices, as transformers takes it.
        trust_remote_code: run code that comes with it.

    Raises:
        ModelError: when it cannot be loaded, in one sentence.
        PluginError: when TransformerLens is not installed or broken.
    """
    file = gguf_file(model)
    is_folder = file is not None or check_pretrained(model)
    options: dict[str, Any] = {"dtype": dtype_named(dtype or "float32")}
    if device is not None:
        options["device"] = device_named(device)
    with quiet():
        boot = _boot()
    if "trust_remote_code" in signature(boot).parameters:
        options["trust_remote_code"] = trust_remote_code
    elif trust_remote_code:
        options["trust_remote_code"] = True  # TransformerLens 2 passes it on
    elif _runs_code(str(model)):
        raise code_refused(str(model))
    recorded: dict[str, Any] = {"notes": [CODE_NOTE]} if trust_remote_code else {}
    if file is not None:
        if "hf_model" not in signature(boot).parameters:
            raise ModelError(
                "this version of TransformerLens takes no model that is loaded already, so it "
                "reads no GGUF file; install TransformerLens 4, or use adapter='transformers'"
            )
        spread = {} if device_map is None else {"device_map": device_map}
        loaded, tokenizer, recorded = read_gguf(file, options["dtype"], **spread)
        options |= {"hf_model": loaded, "tokenizer": tokenizer}
    elif device_map is not None:
        if "device_map" not in signature(boot).parameters:
            raise ModelError(
                "this version of TransformerLens spreads no model over devices; leave device_map "
                "out, or use adapter='transformers'"
            )
        options["device_map"] = device_map
    with (
        quiet() as reports,
        undisturbed(),  # random weights are drawn before the saved ones
        _where_it_looks(options) if file is not None else nullcontext(),
    ):
        if not is_folder:
            check_hub(_official(str(model)))
        try:
            loaded = boot(str(model), **options)
        except Exception as error:  # the hub, the file system and the parsers raise their own
            if needs_code(error) and not trust_remote_code:
                raise code_refused(str(model)) from error
            raise ModelError(
                f"the model {str(model)!r} does not load ({short(cause(error))}); give the name "
                "of a model on the Hugging Face hub, or a folder in its format, and "
                "adapter='transformers' for an architecture that TransformerLens does not read"
            ) from error
    check_weights(str(model), reports)
    check_tokenizer(str(model), getattr(loaded, "tokenizer", None))
    return loaded, recorded


@contextmanager
def _where_it_looks(options: dict[str, Any]) -> Iterator[None]:
    """The tokenizer in a folder: TransformerLens reads even one that it is given from its name."""
    with TemporaryDirectory() as folder:
        tokenizer = options["tokenizer"]
        tokenizer.save_pretrained(folder)
        options["hf_model"].config.save_pretrained(folder)
        options["tokenizer"] = type(tokenizer).from_pretrained(folder)
        yield


def reads_architecture(name: str) -> bool:
    """Whether the installed TransformerLens reads a Hugging Face architecture ("LlamaForCausalLM").

    True also where it cannot be told: loading then says what is missing.
    """
    try:
        with quiet(), undisturbed():
            from transformer_lens.factories import architecture_adapter_factory as factory

            return name in factory.SUPPORTED_ARCHITECTURES
    except Exception:  # not installed, another major, or broken: said where it is used
        return True


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


def _runs_code(name: str) -> bool:
    """Whether TransformerLens 2 would run the code of that model without being told to."""
    try:
        from transformer_lens.loading_from_pretrained import (
            NEED_REMOTE_CODE_MODELS,
            get_official_model_name,
        )

        return str(get_official_model_name(name)).startswith(tuple(NEED_REMOTE_CODE_MODELS))
    except Exception:  # another major, or a name that it does not know: loading says so
        return False


def _official(name: str) -> str:
    """The name on the hub of what TransformerLens has a short name for ("gpt2-small")."""
    from transformer_lens.supported_models import MODEL_ALIASES

    return next((official for official, short in MODEL_ALIASES.items() if name in short), name)
