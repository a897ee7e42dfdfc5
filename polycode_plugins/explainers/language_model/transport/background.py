"""An event loop in a thread of its own, for requests that wait side by side.

The caller's thread may run a loop already, as a notebook's does, so ours is elsewhere. There is one
in a process, since connections belong to the loop that opened them.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.RLock()  # a collection within may finish what is forgotten
_loops: dict[int, asyncio.AbstractEventLoop] = {}  # by process: a fork has no thread of its parent


def run(work: Coroutine[Any, Any, T], interrupted: Callable[[], object]) -> T:
    """What `work` returns.

    On Ctrl-C `interrupted` is called in the loop and `work` is waited for, which should end soon
    then; a second Ctrl-C leaves it alone.
    """
    loop = _loop()
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    finally:
        if not future.done():
            loop.call_soon_threadsafe(interrupted)
            wait([future])


def finish(work: Coroutine[Any, Any, object]) -> None:
    """Let `work` end; in the loop itself, where a garbage collection may call this, do not wait."""
    loop = _loop()
    future = asyncio.run_coroutine_threadsafe(work, loop)
    with suppress(RuntimeError):
        if asyncio.get_running_loop() is loop:
            return
    future.result()


def _loop() -> asyncio.AbstractEventLoop:
    with _lock:
        if os.getpid() not in _loops:
            loop = asyncio.new_event_loop()
            if _loops.setdefault(os.getpid(), loop) is loop:
                threading.Thread(target=loop.run_forever, name="requests", daemon=True).start()
            else:
                loop.close()
        return _loops[os.getpid()]
