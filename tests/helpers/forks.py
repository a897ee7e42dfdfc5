"""Programs in forks of this process, which has imported already what each would import anew."""

from __future__ import annotations

import faulthandler
import functools
import io
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

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
    """Import what the commands import, so that no fork has to."""
    pc.load(adapter="transformer-lens")


class Program:
    """A program that runs.

    Args:
        work: what it does; its status is what this returns or exits with.
        unread: of "stdout" and "stderr", what has no reader from the start.
    """

    def __init__(self, work: Work, *, unread: tuple[str, ...] = ()) -> None:
        warm()
        self._files = (tempfile.TemporaryFile(), tempfile.TemporaryFile())  # noqa: SIM115
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                status = _program(work, self._files, unread)
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)

    def kill(self) -> None:
        """As `kill -9` does."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> Ended:
        """Wait for its end."""
        until = time.monotonic() + LONGEST
        while not (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > until:
                self.kill()
            time.sleep(0.01)
        texts = []
        for file in self._files:
            with file:
                file.seek(0)
                texts.append(file.read().decode())
        return Ended(os.waitstatus_to_exitcode(ended[1]), *texts)


def command(*arguments: object, unread: tuple[str, ...] = ()) -> Ended:
    """Run `polycode ARGUMENTS`."""
    return Program(functools.partial(_command, arguments), unread=unread).end()


def _command(arguments: tuple[object, ...]) -> int:
    from polycode_plugins.commands import main

    sys.argv = ["polycode", *map(str, arguments)]
    return main.program()


def together(world: int, work: Callable[[int], object]) -> list[Ended]:
    """Run `work(rank)` as several processes that find each other, as torchrun starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def one(rank: int) -> Work:
        def run() -> object:
            sizes = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
            where = {"RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1"}
            named = {**sizes, **where, "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in named.items()}
            return work(rank)

        return run

    return [program.end() for program in [Program(one(rank)) for rank in range(world)]]


def served(task: str) -> Ended:
    """Try plugins in a fork of this process in place of a fresh interpreter (`trial._served`)."""

    def work() -> None:
        sys.stdin = io.StringIO(task)
        trial.serve()

    return Program(work).end()


def _program(work: Work, files: tuple[IO[bytes], ...], unread: tuple[str, ...]) -> int:
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
