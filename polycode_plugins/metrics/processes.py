"""Processes beside this one, for the results of many sites.

Sites are worked out in threads. Their decompositions run side by side there; the searches between
small matrices hold the interpreter's lock, so that two threads take two thirds of the time of one
and sixteen no less. Functions marked with `apart` are run in other processes where there are some,
and in this one where there are none, with the same answer. They belong to modules that import no
torch: a process begins in half a second then, and takes 80 MB.
"""

from __future__ import annotations

import math
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from functools import partial, wraps
from multiprocessing import current_process
from multiprocessing.reduction import ForkingPickler
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from loky import ProcessPoolExecutor

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = 0.5  # seconds that the threads have alone: short work is done by then
WATCH = 1.0  # seconds between looks whether what began a process is still there
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}

_lock = Lock()
_pool: _Pool | None = None


@contextmanager
def processes(count: int, patience: float | None = None) -> Iterator[None]:
    """So many processes for functions marked with `apart`, once the work has taken a while.

    None for fewer than two, and no more where another thread has some already.

    patience: seconds before they begin; PATIENCE unless given.
    """
    global _pool
    own = None
    with _lock:
        if count > 1 and _pool is None:
            own = _pool = _Pool(count, PATIENCE if patience is None else patience)
    try:
        yield
    finally:
        if own is not None:
            _pool = None
            own.close()


class _Pool:
    """Processes that begin when they are needed.

    count: how many. patience: seconds before which they are not.
    """

    def __init__(self, count: int, patience: float) -> None:
        self._count = count
        self._from = time.monotonic() + patience
        self._lock = Lock()
        self._executor: ProcessPoolExecutor | None = None

    def executor(self) -> ProcessPoolExecutor | None:
        """None before they are needed, and where the system has none to give."""
        if self._executor is None and time.monotonic() >= self._from:
            with self._lock:
                self._executor = self._executor or self._begun()
        return self._executor

    def _begun(self) -> ProcessPoolExecutor | None:
        if current_process().daemon:  # as those of multiprocessing.Pool: it may begin none
            self._from = math.inf
            return None
        from loky import ProcessPoolExecutor
        from loky.backend import get_context

        # Its context does not run the main module again, as those of the standard library do.
        context = get_context("loky")
        try:
            return ProcessPoolExecutor(
                self._count,
                context=context,
                initializer=_Sent(partial(_prepare, os.getpid())),
                env=ONE_THREAD,
            )
        except (ImportError, OSError):  # no semaphores, as in some sandboxes
            self._from = math.inf
            return None

    def close(self) -> None:
        """End the processes."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, kill_workers=True)


def apart(function: Callable[P, R]) -> Callable[P, R]:
    """A module's function, run in another process where there are some.

    Its arguments and its result pickle and are small; what it raises and warns of comes back.
    """

    @wraps(function)
    def sent(*given: P.args, **named: P.kwargs) -> R:
        pool = None if _pool is None else _pool.executor()
        if pool is None:
            return function(*given, **named)
        from loky.process_executor import ShutdownExecutorError

        try:
            work = _Sent(partial(_answer, sent, given, named))
            value, error, said = pool.submit(work).result()
        # A process was killed, memory ran out, or another thread has ended those that it shared.
        except (BrokenExecutor, ShutdownExecutorError, OSError):
            return function(*given, **named)
        for one in said:
            warnings.warn_explicit(*one)
        if error is not None:
            raise error
        return cast(R, value)

    return sent


class _Sent:
    """What another process is to call, as those of the standard library get it: functions by name.

    loky's own way, cloudpickle, sends modules by value that somebody has registered with it, as
    nnsight does for all that are no part of an installed package.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._pickled = bytes(ForkingPickler.dumps(work))

    def __reduce__(self) -> tuple[Any, ...]:
        return ForkingPickler.loads, (self._pickled,)

    def __call__(self) -> Any:
        """What it gives, should it be called here."""
        return ForkingPickler.loads(self._pickled)()


def _forget() -> None:
    """A fork of this process has none of the threads that bring the answers."""
    global _lock, _pool
    _lock, _pool = Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _prepare(parent: int) -> None:
    """Leave interruptions to the process that waits for the answers, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        os._exit(0)

    Thread(target=follow, daemon=True).start()


def _answer(
    function: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[Any, Exception | None, list[tuple[Any, ...]]]:
    """What a function returns, or raises, and what it warns of."""
    value, failed = None, None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            value = function(*given, **named)
        except Exception as error:
            failed = error
    return value, failed, [(w.message, w.category, w.filename, w.lineno) for w in said]
