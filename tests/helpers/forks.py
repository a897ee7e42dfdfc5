"""Programs in a fork of this process, which has imported already what each would import anew."""

from __future__ import annotations

import faulthandler
import functools
import io
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import polycode_plugins as pc
from polycode_plugins.plugins import trial


@dataclass(frozen=True)
class Ended:
    """The status of a program that has ended, and what it printed and said."""

    returncode: int
    stdout: str
    stderr: str


@functools.cache
def warm() -> None:
    """Import what the commands import, so that no fork has to."""
    pc.load(adapter="transformer-lens")


def forked(work: Callable[[], object], *, unread: tuple[str, ...] = ()) -> Ended:
    """Run code as a program whose status is what it returns or exits with.

    Args:
        work: what the program does.
        unread: of "stdout" and "stderr", what has no reader from the start.
    """
    warm()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        files = (out, err)
        child = os.fork()
        if not child:
            try:
                status = _program(work, files, unread)
            except BaseException:
                os.write(2, traceback.format_exc().encode())
                status = 1
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in files:
            file.seek(0)
        return Ended(status, out.read().decode(), err.read().decode())


def command(*arguments: object, unread: tuple[str, ...] = ()) -> Ended:
    """Run `polycode ARGUMENTS`."""

    def work() -> int:
        from polycode_plugins.commands import main

        sys.argv = ["polycode", *map(str, arguments)]
        return main.program()

    return forked(work, unread=unread)


def served(task: str) -> Ended:
    """Try plugins in a fork of this process in place of a fresh interpreter (`trial._served`)."""

    def work() -> None:
        sys.stdin = io.StringIO(task)
        trial.serve()

    return forked(work)


def _program(
    work: Callable[[], object], files: tuple[IO[bytes], ...], unread: tuple[str, ...]
) -> int:
    """What an interpreter does around a program, from its streams to their last flush."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.disable()  # pytest's
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, (name, file) in enumerate(zip(("stdout", "stderr"), files, strict=True), 1):
        target = file.fileno()
        if name in unread:
            reading, target = os.pipe()
            os.close(reading)
        os.dup2(target, number)
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__ = (
        os.fdopen(0, closefd=False),
        os.fdopen(1, "w", closefd=False),
        os.fdopen(2, "w", buffering=1, closefd=False),
    )
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    warnings.simplefilter("default", UserWarning)
    warnings.showwarning = lambda message, category, filename, line, *_: sys.stderr.write(
        warnings.formatwarning(message, category, filename, line)
    )
    try:
        status = work()
    except SystemExit as error:
        status = error.code
    except BaseException:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            os.write(2, f"Exception ignored in: {stream.name}: {error}\n".encode())
            status = 120
    return status if isinstance(status, int) else int(status is not None)
