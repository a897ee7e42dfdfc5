"""Loading a model by name or from a folder with whatever TransformerLens is installed.

Quietly, quickly where it cannot work, and never with weights or a tokenizer that are not there.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from polycode_plugins.adapters.pretrained import check_pretrained, dtype_named
from polycode_plugins.errors import ModelError, PluginError
from polycode_plugins.plugins import cause, missing_extra

CONNECT_SECONDS = 10.0


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
        options["device"] = _device(device)
    with _quiet():
        boot = _boot()
    with _quiet() as reports:
        if not is_folder:
            _check_hub(str(model))
        try:
            loaded = boot(str(model), **options)
        except Exception as error:  # the hub, the file system and the parsers raise their own
            raise ModelError(
                f"the model {str(model)!r} does not load ({_short(cause(error))}); give the name "
                "of a model on the Hugging Face hub, or a folder in its format"
            ) from error
    _check_weights(str(model), reports)
    _check_tokenizer(str(model), getattr(loaded, "tokenizer", None))
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


def _device(name: str) -> str:
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise ModelError(f"unknown device {name!r}; use cpu, cuda, cuda:1, mps, ...") from error
    backend = getattr(torch, kind, None)
    if kind != "cpu" and not (backend is not None and backend.is_available()):
        raise ModelError(f"this machine has no device {name!r} that torch can use; use cpu")
    return name


def _short(text: str) -> str:
    """The first sentence of another library's message, without its full stop."""
    return text.partition(". ")[0][:200].rstrip(".:")


# -- what cannot work ------------------------------------------------------------------------------


def _check_tokenizer(model: str, tokenizer: Any) -> None:
    """Without its files transformers makes an empty tokenizer, and says nothing."""
    broken: Exception | None = None
    ids: Any = None
    try:
        ids = tokenizer("a b c", add_special_tokens=False)["input_ids"] if tokenizer else None
    except Exception as error:  # made without files, it may fail in any way
        broken = error
    if not ids:
        raise ModelError(
            f"{model!r} comes without a working tokenizer, so every text would be read as "
            "nothing; save it there too (tokenizer.save_pretrained), or load the model yourself "
            "and pass the live model"
        ) from broken


def _check_weights(model: str, reports: list[str]) -> None:
    """Weights that a checkpoint lacks are drawn at random, with a table in a log."""
    lacking = re.findall(r"^(\S+) *\| *MISSING", "\n".join(reports), flags=re.MULTILINE)
    if lacking or any("newly initialized" in report for report in reports):
        which = f" ({len(lacking)}, the first is {lacking[0]!r})" if lacking else ""
        raise ModelError(
            f"{model!r} lacks weights of its architecture{which}, which would be random numbers; "
            "save the whole model, or load it yourself and pass the live model"
        )


def _check_hub(name: str) -> None:
    """Fail at once where the hub cannot be reached, which costs half a minute of retries there.

    Raises:
        ModelError: when there is no connection and the model is not in the cache.
    """
    import huggingface_hub
    from huggingface_hub import errors
    from transformer_lens.supported_models import MODEL_ALIASES

    official = next((o for o, short in MODEL_ALIASES.items() if name in short), name)
    answered = (errors.HfHubHTTPError, errors.HFValidationError, errors.OfflineModeIsEnabled)
    try:
        url = huggingface_hub.hf_hub_url(official, "config.json")
        huggingface_hub.get_hf_file_metadata(url, timeout=CONNECT_SECONDS)
    except answered:
        return  # an answer, if only a refusal: loading says best what is wrong
    except Exception as error:  # which HTTP client it uses depends on its version
        cached = huggingface_hub.try_to_load_from_cache(official, "config.json")
        if isinstance(cached, str):
            return
        raise ModelError(
            f"{name!r} is no folder here, and the Hugging Face hub cannot be reached to look for "
            f"it ({_short(cause(error))}); check the name and the network"
        ) from error


# -- what others print -----------------------------------------------------------------------------


class _Reports(logging.Handler):
    def __init__(self, into: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._into = into

    def emit(self, record: logging.LogRecord) -> None:
        self._into.append(record.getMessage())


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Nothing printed, warned or logged; yields what transformers would have logged.

    TransformerLens sets the level of transformers' logger when it is imported and may configure
    the root logger: both are as before afterwards.
    """
    reports: list[str] = []
    handler = _Reports(reports)
    root, theirs = logging.getLogger(), logging.getLogger("transformers")
    before = theirs.level, theirs.propagate, list(theirs.handlers), list(root.handlers), root.level
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), _without_bars():
        warnings.simplefilter("ignore")
        root.handlers[:] = [logging.NullHandler()]
        theirs.handlers[:] = [handler]
        theirs.setLevel(logging.WARNING)
        theirs.propagate = False
        try:
            yield reports
        finally:
            theirs.setLevel(before[0])
            theirs.propagate = before[1]
            theirs.handlers[:] = before[2]
            root.handlers[:] = before[3]
            root.setLevel(before[4])


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without transformers' progress bars; those of a download stay."""
    try:
        from transformers.utils import logging as theirs
    except Exception:  # its absence is reported where it is needed
        yield
        return
    shown = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            theirs.enable_progress_bar()
