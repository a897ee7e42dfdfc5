"""Programs in forks of a process that began early: small, and with nothing optional imported.

A fork copies the page tables of the whole process. A worker that has imported what it tests and
collected all tests takes a gigabyte, and some tests want a hundred forks. So each worker forks a
server before that, once torch is there, and asks it for programs that need nothing of the worker's
own: a function that a module has, its arguments, and the worker's paths, variables and folder.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
import pickle
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import forks

from polycode_plugins import plugins

_server: tuple[int, Connection] | None = None


def begin() -> None:
    """Fork the server of this process."""
    global _server
    ours, theirs = Pipe()
    pid = os.fork()
    if not pid:
        try:
            ours.close()
            _serve(theirs)
        finally:
            os._exit(0)
    theirs.close()
    _server = pid, ours


def end() -> None:
    """End the server, where there is one."""
    global _server
    if _server is not None:
        pid, connection = _server
        with suppress(OSError), connection:  # the server may be gone
            connection.send(None)
        os.waitpid(pid, 0)
        _server = None


def imports(*modules: str) -> None:
    """Have the server import what no program has to import then."""
    _ask("imports", modules)


class Program(forks.Program):
    """A program that runs.

    Args:
        work: a function of a module that `sys.path` reaches, with its arguments; the program
            imports the module.
        unread: of "stdout" and "stderr", what has no reader from the start.
    """

    def _begun(self, work: Callable[[], object], unread: tuple[str, ...]) -> int:
        where = (dict(os.environ), os.getcwd(), list(sys.path))
        return int(_ask("begin", (pickle.dumps(work), where, self._files, unread)))

    def _status(self) -> int:
        return int(_ask("end", (self.pid,)))


def served(task: str) -> forks.Ended:
    """Try plugins in a fork in place of a fresh interpreter (`trial._served`)."""
    return Program(functools.partial(forks.serve, task)).end()


def _ask(what: str, given: tuple[Any, ...]) -> Any:
    assert _server is not None
    _server[1].send((what, given))
    answer = _server[1].recv()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _serve(connection: Connection) -> None:
    """Do what is asked until the worker ends."""
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # is for the worker, which ends this one
    with suppress(EOFError, ConnectionError):
        while (asked := connection.recv()) is not None:
            what, given = asked
            try:
                connection.send(_DO[what](*given))
            except Exception as error:
                connection.send(error)


def _import(*modules: str) -> None:
    for name in modules:
        importlib.import_module(name)
    for kind in plugins.KINDS:
        plugins.find(kind)  # reads the metadata of all that is installed
    gc.freeze()  # or a program that looks for garbage would copy all of it


def _begin(
    work: bytes,
    where: tuple[dict[str, str], str, list[str]],
    files: list[str],
    unread: tuple[str, ...],
) -> int:
    def program() -> object:
        variables, folder, path = where
        os.environ.clear()
        os.environ.update(variables)
        os.chdir(folder)
        sys.path[:] = path
        importlib.invalidate_caches()
        gc.enable()
        return pickle.loads(work)()

    return forks.fork(program, files, unread)


_DO: dict[str, Callable[..., Any]] = {"imports": _import, "begin": _begin, "end": forks.wait}
