"""A run that is saved in a process that dies before its n-th rename, sync or removal."""

from __future__ import annotations

import itertools
import os
import pathlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from polycode_plugins.files import storage


def save(folder: Path, value: int) -> None:
    run = {"complete": True, "rows": {"count": 0, "ranges": [], "digest": "0"}, "batches": value}
    state = {"x": torch.full((4,), float(value))}
    storage.save(folder, state, [("s", 0, "m", {"a": value}, {"v": value})], run)


def program(folder: Path, value: int, operation: int) -> None:
    count = itertools.count(1)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if next(count) == operation:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return call

    os.replace, os.fsync = counted(os.replace), counted(os.fsync)
    pathlib.Path.replace = counted(pathlib.Path.replace)  # type: ignore[method-assign]
    pathlib.Path.unlink = counted(pathlib.Path.unlink)  # type: ignore[method-assign]
    save(folder, value)
