"""Engines of vLLM, one at a time: each is made once for the tests that use it."""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SETTINGS = {"max_num_batched_tokens": 48, "max_num_seqs": 6}


def require_vllm() -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed here; `make test-vllm` runs this in its environment")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    require_vllm()
    from engine_truth import save_random

    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = save_random(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


@pytest.fixture(scope="module")
def engine() -> Iterator[Callable[..., Any]]:
    """Makes the adapter on a folder in this process; the one that was made before ends."""
    require_vllm()
    import polycode_plugins as pc

    held: dict[Any, Any] = {}
    before = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

    def make(folder: Path, **settings: Any) -> Any:
        key = (str(folder), tuple(sorted(settings.items())))
        if key not in held:
            _end(held)
            held[key] = pc.load(f"vllm:{folder}", engine={**SETTINGS, **settings})
        return held[key]

    yield make
    _end(held)
    if before is None:
        del os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"]
    else:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = before


def _end(held: dict[Any, Any]) -> None:
    if not held:
        return
    from vllm.distributed import cleanup_dist_env_and_memory

    held.clear()
    gc.collect()
    cleanup_dist_env_and_memory()
