"""Requests a second through the explainers' client, beside what the server's delay allows.

A server in a process of its own answers each request after 50 ms, and 32 are under way at once, so
at best 640 a second are answered. Beside it, what the machine allows: the standard library's HTTP
client in as many threads, and aiohttp in one event loop with nothing around it; the difference from
that is the price of the store, the budget and the order of answers.

    python benchmarks/explainer_throughput.py [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

DELAY, CONCURRENCY = 0.05, 32
SERVER = Path(__file__).parents[1] / "tests" / "helpers" / "openai_server.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    count = 1000 if parser.parse_args().quick else 6000
    os.environ["NO_PROXY"] = "127.0.0.1"
    server = subprocess.Popen(
        [sys.executable, str(SERVER), "--delay", str(DELAY)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/plain/v1"
        rows = [("ideal", CONCURRENCY / DELAY, 0.0)]
        rows.append(("http.client", *plain(url, count)))
        rows.append(("aiohttp alone", *bare(url, count)))
        rows.append(("this package, into the store", *ours(url, count)))
    finally:
        server.kill()
    ideal = rows[0][1]
    print(f"{count} requests, {CONCURRENCY} at once, {DELAY * 1e3:.0f} ms each\n")
    print("| | requests/s | of ideal | CPU ms a request |\n|---|---|---|---|")
    for name, rate, cpu in rows:
        print(f"| {name} | {rate:.0f} | {rate / ideal:.0%} | {cpu:.2f} |")


def body(number: int) -> dict[str, object]:
    text = f"{number}\n" + "a word\t0\n" * 100
    return {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 60}


def plain(url: str, count: int) -> tuple[float, float]:
    parts, local = urlsplit(url), threading.local()

    def ask(number: int) -> None:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(parts.netloc)
        text = json.dumps(body(number))
        local.connection.request("POST", f"{parts.path}/chat/completions", text)
        json.loads(local.connection.getresponse().read())

    return timed(ask, count)


def bare(url: str, count: int) -> tuple[float, float]:
    import aiohttp

    async def all_of(client: aiohttp.ClientSession, numbers: range) -> None:
        left = iter(numbers)

        async def go_on() -> None:
            for number in left:
                text = json.dumps(body(number))
                async with client.post(f"{url}/chat/completions", data=text) as response:
                    json.loads(await response.read())

        await asyncio.gather(*(go_on() for _ in range(CONCURRENCY)))

    async def timed_loop() -> tuple[float, float]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
            await all_of(client, range(-CONCURRENCY, 0))
            start, cpu = time.perf_counter(), time.process_time()
            await all_of(client, range(count))
            spent = time.perf_counter() - start, time.process_time() - cpu
            return count / spent[0], spent[1] / count * 1e3

    return asyncio.run(timed_loop())


def timed(ask: Callable[[int], None], count: int) -> tuple[float, float]:
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        list(pool.map(ask, range(-CONCURRENCY, 0)))  # connections are open
        start, cpu = time.perf_counter(), time.process_time()
        list(pool.map(ask, range(count)))
        return count / (time.perf_counter() - start), (time.process_time() - cpu) / count * 1e3


def ours(url: str, count: int) -> tuple[float, float]:
    from polycode_plugins.explainers.language_model import OpenAIServer, Store
    from polycode_plugins.explainers.language_model.transport.budget import Budget
    from polycode_plugins.explainers.language_model.transport.prices import read_prices
    from polycode_plugins.explainers.language_model.transport.request import CHAT, Request
    from polycode_plugins.explainers.language_model.transport.session import Session

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "answers.sqlite")
        prices = read_prices({"m": {"in": 1, "out": 1}})
        session = Session(
            OpenAIServer(url),
            store,
            budget=Budget(store, prices, 1e6),
            concurrency=CONCURRENCY,
        )
        warm = range(-5 * CONCURRENCY - count, -count)  # connections are open, and all are used
        session.ask([Request(CHAT, body(n), "explain", "v") for n in warm])
        assert session.pace.limit == CONCURRENCY
        requests = [Request(CHAT, body(n), "explain", "v") for n in range(count, 2 * count)]
        start, cpu = time.perf_counter(), time.process_time()
        replies = session.ask(requests)
        spent = time.perf_counter() - start, time.process_time() - cpu
        assert all(reply.raw for reply in replies)
        store.close()
        return count / spent[0], spent[1] / count * 1e3


if __name__ == "__main__":
    main()
