"""The same run again and again, killed at random moments, and at last left to finish.

Each run is a fork, so that none pays for the imports; how many answers were in the store after each
is printed.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time

import aiohttp  # noqa: F401 - before the forks

from polycode_plugins.explainers.language_model import OpenAIServer, Store
from polycode_plugins.explainers.language_model.transport.budget import Budget
from polycode_plugins.explainers.language_model.transport.prices import read_prices
from polycode_plugins.explainers.language_model.transport.request import CHAT, Request
from polycode_plugins.explainers.language_model.transport.session import Session

CONCURRENCY = 8


def requests(count: int) -> list[Request]:
    return [
        Request(
            CHAT,
            {"model": "m", "messages": [{"role": "user", "content": f"x{i}"}], "max_tokens": 5},
            "explain",
            "v",
        )
        for i in range(count)
    ]


def run(url: str, path: str, count: int) -> None:
    prices = read_prices({"m": {"in": 1, "out": 1}})
    store = Store(path)
    session = Session(
        OpenAIServer(url), store, budget=Budget(store, prices), concurrency=CONCURRENCY
    )
    replies = session.ask(requests(count))
    assert all(reply.raw for reply in replies)


def answers(path: str) -> int:
    if not os.path.exists(path):
        return 0
    db = sqlite3.connect(path, timeout=30)
    try:
        return int(db.execute("SELECT COUNT(*) FROM answers").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # killed before there were tables
    finally:
        db.close()


def program(url: str, path: str, seed: int, rounds: int, count: int) -> None:
    draw = random.Random(seed)
    for number in range(rounds + 1):
        child = os.fork()
        if child == 0:
            run(url, path, count)
            os._exit(0)
        ended, status = 0, 0
        if number % 3 == 1:  # at any time, be it while the store is opened
            time.sleep(draw.uniform(0.0, 0.3))
        elif number < rounds:  # in the middle of the work
            enough = answers(path) + draw.randint(1, 80)
            while answers(path) < enough and not ended:
                ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            if number < rounds:
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        print(answers(path), flush=True)
    sys.exit(os.waitstatus_to_exitcode(status))
