"""Programs in forks of this process, which has imported already what each would import anew."""

from __future__ import annotations

import faulthandler
import functools
import gc
import io
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polycode_plugins as pc
from polycode_plugins.plugins import trial

Work = Callable[[], object]
LONGEST = 300.0  # seconds; a program that hangs is killed then


@dataclass(frozen=True)
class Ended:
    """The status of a program that has ended, and what it printed and said."""

    returncode: int
    stdout: str
    stderr: str


@functools.cache
def warm() -> None:
    """Import what the commands import, and read their model, so that no fork has to."""
    pc.load(adapter="transformer-lens")


class Program:
    """A program that runs.

    Args:
        work: what it does; its status is what this returns or exits with.
        unread: of "stdout" and "stderr", what has no reader from the start.
    """

    def __init__(self, work: Work, *, unread: tuple[str, ...] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory()
        files = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        for file in files:
            file.touch()
        self._files = [str(file) for file in files]
        self.pid = self._begun(work, unread)

    def _begun(self, work: Work, unread: tuple[str, ...]) -> int:
        warm()
        return fork(work, self._files, unread)

    def _status(self) -> int:
        return wait(self.pid)

    def kill(self) -> None:
        """As `kill -9` does."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> Ended:
        """Wait for its end."""
        status = self._status()
        with self._folder:
            return Ended(status, *(Path(file).read_bytes().decode() for file in self._files))


def fork(work: Work, files: Sequence[str], unread: tuple[str, ...]) -> int:
    """A process that does the work, and writes what it prints and says into the two files."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        status = _program(work, files, unread)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def wait(child: int) -> int:
    """The status of a process once it has ended; one that hangs is killed."""
    until = time.monotonic() + LONGEST
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(ended[1])


def command(*arguments: object, unread: tuple[str, ...] = ()) -> Ended:
    """Run `polycode ARGUMENTS`."""
    return Program(functools.partial(_command, arguments), unread=unread).end()


def _command(arguments: tuple[object, ...]) -> int:
    from polycode_plugins.commands import main

    sys.argv = ["polycode", *map(str, arguments)]
    return main.program()


def together(
    world: int,
    work: Callable[[int], object],
    *,
    start: Callable[[Work], Program] | None = None,
) -> list[Ended]:
    """Run `work(rank)` as several processes that find each other, as torchrun starts them.

    start: what runs each (default: Program).
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    works = [functools.partial(_ranked, rank, world, port, work) for rank in range(world)]
    return [program.end() for program in [(start or Program)(one) for one in works]]


def _ranked(rank: int, world: int, port: int, work: Callable[[int], object]) -> object:
    sizes = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    where = {"RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1"}
    named = {**sizes, **where, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in named.items()}
    return work(rank)


def serve(task: str) -> None:
    """What a fresh interpreter does to try plugins (`trial._served`)."""
    sys.stdin = io.StringIO(task)
    trial.serve()


def _program(work: Work, files: Sequence[str], unread: tuple[str, ...]) -> int:
    """What an interpreter does around a program, from its streams to their last flush."""
    gc.freeze()  # what was there is no garbage: to look through it would copy it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.disable()  # pytest's
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, (name, file) in enumerate(zip(("stdout", "stderr"), files, strict=True), 1):
        target = os.open(file, os.O_WRONLY)
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
