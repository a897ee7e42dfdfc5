"""What loading from a Hugging Face name or folder has in common, whatever library loads.

Quietly, quickly where it cannot work, and never with weights or a tokenizer that are not there.
"""

from __future__ import annotations

import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from polycode_plugins.errors import ModelError
from polycode_plugins.plugins import cause

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
CONNECT_SECONDS = 10.0


def check_pretrained(model: str | Path) -> bool:
    """Whether `model` is a local folder rather than a name on the hub.

    Raises:
        ModelError: for a folder that does not exist or lacks a configuration or a tokenizer; the
            libraries would take such a one and read every text as nothing, or ask the hub for it.
    """
    is_folder = check_folder(model)
    if is_folder and not any((Path(model) / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(
            f"the folder {str(model)!r} has no tokenizer files; save the tokenizer there too "
            "(tokenizer.save_pretrained), since every text would be read as nothing"
        )
    return is_folder


def check_folder(model: str | Path) -> bool:
    """As `check_pretrained`, of a model that may read no text."""
    folder, shown = Path(model), repr(str(model))
    if os.path.isdir(folder):  # which takes any name
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"the folder {shown} has no config.json, so it is not a model in Hugging Face "
                "format; save one with save_pretrained"
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


def device_named(name: str) -> str:
    """`name`, where it is a device that torch can use here.

    Raises:
        ModelError: for an unknown device, and one that is not there.
    """
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise ModelError(f"unknown device {name!r}; use cpu, cuda, cuda:1, mps, ...") from error
    backend = getattr(torch, kind, None)
    if kind != "cpu" and not (backend is not None and backend.is_available()):
        raise ModelError(f"this machine has no device {name!r} that torch can use; use cpu")
    return name


def check_tokenizer(model: str, tokenizer: Any) -> None:
    """Raise ModelError for a tokenizer that reads nothing.

    Without its files transformers makes an empty one, and says nothing.
    """
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


def check_weights(model: str, reports: list[str]) -> None:
    """Raise ModelError when `reports`, from `quiet`, tell of weights that were not saved.

    Weights that a checkpoint lacks are drawn at random, with a table in a log.
    """
    lacking = re.findall(r"^(\S+) *\| *MISSING", "\n".join(reports), flags=re.MULTILINE)
    if lacking or any("newly initialized" in report for report in reports):
        which = f" ({len(lacking)}, the first is {lacking[0]!r})" if lacking else ""
        raise ModelError(
            f"{model!r} lacks weights of its architecture{which}, which would be random numbers; "
            "save the whole model, or load it yourself and pass the live model"
        )


def check_hub(name: str) -> None:
    """Fail at once where the hub cannot be reached, which costs half a minute of retries there.

    Raises:
        ModelError: when there is no connection and the model is not in the cache.
    """
    import huggingface_hub
    from huggingface_hub import errors

    answered = (errors.HfHubHTTPError, errors.HFValidationError, errors.OfflineModeIsEnabled)
    try:
        url = huggingface_hub.hf_hub_url(name, "config.json")
        huggingface_hub.get_hf_file_metadata(url, timeout=CONNECT_SECONDS)
    except answered:
        return  # an answer, if only a refusal: loading says best what is wrong
    except Exception as error:  # which HTTP client it uses depends on its version
        cached = huggingface_hub.try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str):
            return
        raise ModelError(
            f"{name!r} is no folder here, and the Hugging Face hub cannot be reached to look for "
            f"it ({short(cause(error))}); check the name and the network"
        ) from error


def needs_code(error: BaseException) -> bool:
    """Whether a model did not load since it needs code of its own, which was not allowed."""
    chain: BaseException | None = error
    while chain is not None:
        if "trust_remote_code" in str(chain):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


def code_refused(name: str, flag: str = "--option trust_remote_code=true") -> ModelError:
    """The refusal of a model that needs code of its own."""
    return ModelError(
        f"{name!r} needs code that comes with it, which is not run unasked; read that code, then "
        f"allow it for this run with trust_remote_code=True ({flag})"
    )


#: What the record of a model says whose own code was run.
CODE_NOTE = "Code that came with the model was run (trust_remote_code)."


def short(text: str) -> str:
    """The first sentence of another library's message, without its full stop."""
    return text.partition(". ")[0][:200].rstrip(".:")


# -- what others print -----------------------------------------------------------------------------


class _Reports(logging.Handler):
    def __init__(self, into: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._into = into

    def emit(self, record: logging.LogRecord) -> None:
        self._into.append(record.getMessage())


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Nothing printed, warned or logged; yields what transformers would have logged.

    A library may set the level of transformers' logger when it is imported, and configure the root
    logger: both are as before afterwards.
    """
    reports: list[str] = []
    handler = _Reports(reports)
    root, theirs = logging.getLogger(), logging.getLogger("transformers")
    before = theirs.level, theirs.propagate, list(theirs.handlers), list(root.handlers), root.level
    with (
        warnings.catch_warnings(),
        redirect_stdout(io.StringIO()),
        _without_bars(),
        without_questions(),
    ):
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


@contextmanager
def without_questions() -> Iterator[None]:
    """Where nobody said whether a model's code may run, it may not: no prompt that nobody sees."""
    try:
        from transformers import dynamic_module_utils as theirs
    except Exception:  # its absence is reported where it is needed
        yield
        return
    before = getattr(theirs, "TIME_OUT_REMOTE_CODE", None)
    theirs.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        theirs.TIME_OUT_REMOTE_CODE = before
