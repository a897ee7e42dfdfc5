"""`polycode compare` over a server, killed again and again, and at last left to finish.

Each run is a fork, so that none pays for the imports. How many answers were in the store at each
kill is printed.
"""

from __future__ import annotations

import os
import signal
import time

import aiohttp  # noqa: F401 - before the forks
from killed_runs import answers

from polycode_plugins.commands.main import main


def run(arguments: list[str]) -> int:
    child = os.fork()
    if child == 0:
        os._exit(main(arguments))
    return child


def program(store: str, kills: int, arguments: list[str]) -> int:
    for _ in range(kills):
        enough, child, ended = answers(store) + 25, run(arguments), 0
        while answers(store) < enough and not ended:
            time.sleep(0.02)
            ended, _ = os.waitpid(child, os.WNOHANG)
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        print(answers(store), flush=True)
    _, status = os.waitpid(run(arguments), 0)
    return os.waitstatus_to_exitcode(status)
