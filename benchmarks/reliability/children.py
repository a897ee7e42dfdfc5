"""Forks of this process that count their file operations, and are killed before one of them."""

from __future__ import annotations

import builtins
import io
import itertools
import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from polycode_plugins.errors import PolycodeError

ENDED, REFUSED, BROKEN, KILLED = "ended", "refused", "traceback", "killed"
OPERATIONS = ("replace", "fsync", "unlink", "rmdir", "mkdir")


@dataclass(frozen=True)
class End:
    """How a child ended, what it said, and how many file operations it did."""

    how: str
    said: str = ""
    operations: int = 0


def hooked(before: Callable[[], None]) -> None:
    """Call `before` before every file operation of this process."""

    def of(function: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            before()
            return function(*given, **named)

        return call

    for name in OPERATIONS:
        setattr(os, name, of(getattr(os, name)))

    def opened(file: object, mode: str = "r", *given: object, **named: object) -> object:
        if set(mode) & set("wax+"):
            before()
        return original(file, mode, *given, **named)

    original = builtins.open
    builtins.open = io.open = opened  # type: ignore[assignment]


def fork(work: Callable[[], None], before: Callable[[int], None] | None = None) -> tuple[int, int]:
    """Start a child; its process, and a pipe on which it says how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)
    count = itertools.count(1)
    done = 0

    def step() -> None:
        nonlocal done
        done = next(count)
        if before is not None:
            before(done)

    hooked(step)
    how, said = ENDED, ""
    try:
        work()
    except PolycodeError as error:
        how, said = REFUSED, str(error)
    except BaseException:
        how, said = BROKEN, traceback.format_exc()
    os.write(writing, json.dumps([how, said[-2000:], done]).encode())
    os._exit(0)


def ended(child: int, pipe: int) -> End:
    """Wait for a child."""
    os.waitpid(child, 0)
    with os.fdopen(pipe, "rb") as file:
        text = file.read()
    return End(*json.loads(text)) if text else End(KILLED)


def once(work: Callable[[], None], *, at: int = 0, after: float = 0.0) -> End:
    """One child, killed before its operation `at` or `after` seconds, or left to end."""

    def kill(number: int) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    child, pipe = fork(work, kill if at else None)
    if after:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return ended(child, pipe)


def together(work: Callable[[], None], world: int, *, rank: int = 0, at: int = 0) -> End:
    """Several processes of one run, of which one is killed; then the others, as torchrun does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def one(number: int) -> Callable[[], None]:
        def run() -> None:
            os.environ |= {
                "RANK": str(number), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            }  # fmt: skip
            work()

        return run

    def kill(number: int) -> None:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)

    running = {
        fork(one(number), kill if at and number == rank else None): number
        for number in range(world)
    }
    ends: dict[int, End] = {}
    while running:
        for (child, pipe), number in list(running.items()):
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                ends[number] = ended(child, pipe)
                del running[child, pipe]
                if ends[number].how != ENDED:
                    for other, _ in running:
                        time.sleep(0.2)
                        os.kill(other, signal.SIGKILL)
        time.sleep(0.005)
    if any(end.how == KILLED for end in ends.values()):
        return End(KILLED)
    worst = max(ends.values(), key=lambda end: (ENDED, REFUSED, BROKEN).index(end.how))
    return End(worst.how, worst.said, ends[rank].operations)
