"""Asking many requests at once: out of the store where they were answered, within the budget.

Requests wait side by side in one event loop. Of a request's time the processor's share is what
limits how many are answered in a second, and in one thread no share goes to handing over.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from polycode_plugins.errors import DataError, StateError
from polycode_plugins.explainers.costs import FREE, Cost
from polycode_plugins.explainers.language_model import background
from polycode_plugins.explainers.language_model.answer_store import Store
from polycode_plugins.explainers.language_model.failures import BudgetError, Refused, Transient
from polycode_plugins.explainers.language_model.prices import Prices
from polycode_plugins.explainers.language_model.request import Request, usage_of
from polycode_plugins.explainers.language_model.server import Backend

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0


@dataclass(frozen=True, eq=False)
class Reply:
    """What came of a request: the answer, or the reason why there is none."""

    raw: dict[str, Any] | None
    reason: str
    cost: Cost


@dataclass(frozen=True)
class Plan:
    """What requests would take at most, before anything is sent.

    Attributes:
        requests: to be sent, {purpose: number}.
        stored: answered already.
        prompt_tokens: tokens sent, estimated; completion_tokens: tokens received at most.
        dollars: their price; None without prices.
    """

    requests: dict[str, int]
    stored: int
    prompt_tokens: int
    completion_tokens: int
    dollars: float | None

    def __add__(self, other: Plan) -> Plan:
        priced = self.dollars is not None and other.dollars is not None
        return Plan(
            dict(Counter(self.requests) + Counter(other.requests)),
            self.stored + other.stored,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            (self.dollars or 0.0) + (other.dollars or 0.0) if priced else None,
        )

    @property
    def cost(self) -> Cost:
        """The same as a `Cost`."""
        return Cost(
            sum(self.requests.values()), self.stored, self.prompt_tokens, self.completion_tokens
        )


class Session:
    """One backend, its store, and what may be spent.

    Args:
        backend: what answers.
        store: where answers are kept.
        prices: dollars per million tokens, needed for a budget.
        budget: dollars that everything in the store together may cost; None for no limit. What is
            under way counts at its highest price: the longest answer, and the tokens sent as far
            as they can be estimated. What came counts as the server says.
        concurrency: requests under way at most.
        attempts: how often a request is sent at most, where it fails for a passing reason.
        progress: show a bar on standard error.

    Raises:
        DataError: for a budget without prices, and numbers that are out of range.
    """

    def __init__(
        self,
        backend: Backend,
        store: Store,
        *,
        prices: Prices | None = None,
        budget: float | None = None,
        concurrency: int = 32,
        attempts: int = 6,
        progress: bool = False,
    ) -> None:
        if budget is not None and prices is None:
            raise DataError("a budget needs prices: give the table of prices as well")
        if budget is not None and not budget >= 0:
            raise DataError(f"the budget is {budget}; give dollars of at least 0")
        if concurrency < 1 or attempts < 1:
            raise DataError("concurrency and attempts must be at least 1")
        self.backend, self.store, self.prices, self.budget = backend, store, prices, budget
        self._concurrency, self._attempts, self._progress = concurrency, attempts, progress
        self._stop, self._settled = asyncio.Event(), asyncio.Event()
        self._spent, self._reserved = store.spent().dollars, 0.0
        self._exchange, close = _exchange(backend, concurrency)
        self._closing = weakref.finalize(self, close)  # where it is forgotten, too
        self._quiet_until = 0.0  # on the monotonic clock: when a server asked us to wait, all wait

    def plan(self, requests: Iterable[Request]) -> Plan:
        """What `ask` would take at most; nothing is sent."""
        counts: Counter[str] = Counter()
        stored = sent = received = 0
        dollars = 0.0
        seen: set[str] = set()
        for request in requests:
            key = request.key(self.backend.identity)
            if key in seen or self.store.holds(key):
                stored += 1
                continue
            seen.add(key)
            counts[request.purpose] += 1
            tokens_in = request.estimated_in()
            sent, received = sent + tokens_in, received + request.most_out
            dollars += self._price(request, tokens_in, request.most_out)
        return Plan(dict(counts), stored, sent, received, None if self.prices is None else dollars)

    def stored(self, request: Request) -> Reply | None:
        """The answer in the store; None where there is none."""
        raw = self.store.answer(request.key(self.backend.identity))
        return None if raw is None else Reply(raw, "", Cost(stored=1))

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """An answer or a failure for each request, in order.

        Raises:
            BudgetError: when the next request could exceed the budget.
            RemoteError: when no request can succeed. In both cases, and when it is interrupted,
                what is under way is waited for and kept.
        """
        keys = [request.key(self.backend.identity) for request in requests]
        todo = dict(zip(keys, requests, strict=True))
        found = self.store.answers(list(todo))
        replies = {key: Reply(raw, "", Cost(stored=1)) for key, raw in found.items()}
        new = {key: request for key, request in todo.items() if key not in found}
        replies.update(self._send_all(new))
        first: set[str] = set()
        answers = []
        for key in keys:  # what was asked twice was sent once, and is counted once
            reply = replies[key]
            if key in first:
                reply = Reply(
                    reply.raw, reply.reason, FREE if reply.raw is None else Cost(stored=1)
                )
            answers.append(reply)
            first.add(key)
        return answers

    def close(self) -> None:
        """Close the connections and the store."""
        self._closing()
        self.store.close()

    def _send_all(self, new: dict[str, Request]) -> dict[str, Reply]:
        if not new:
            return {}
        from tqdm import tqdm

        self._stop.clear()
        with tqdm(total=len(new), unit="request", disable=not self._progress, leave=False) as bar:
            return background.run(self._side_by_side(new, bar.update), interrupted=self._halt)

    async def _side_by_side(
        self, new: dict[str, Request], answered: Callable[[], object]
    ) -> dict[str, Reply]:
        left = iter(new.items())
        replies: dict[str, Reply] = {}

        async def go_on() -> None:
            for key, request in left:
                replies[key] = await self._send(key, request)
                answered()
                if self._stop.is_set():
                    return

        tasks = [asyncio.create_task(go_on()) for _ in range(min(self._concurrency, len(new)))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failures = [t.exception() for t in tasks if t.done() and t.exception() is not None]
        self._halt()
        await asyncio.wait(tasks)
        for failure in failures:
            assert failure is not None
            raise failure  # what stopped the run
        return replies

    async def _send(self, key: str, request: Request) -> Reply:
        most = 0.0
        if self.prices is not None:
            most = self._price(request, request.estimated_in(), request.most_out)
        reason, sent = "the run was stopped", 0
        for attempt in range(self._attempts):
            await self._reserve(most)
            paid, number = 0.0, 0
            try:
                if await self._stopped_within(self._quiet_until - time.monotonic()):
                    break
                number = self.store.begin(key, request.purpose, most)
                sent += 1
                raw = await self._exchange(request, key)
                usage = usage_of(raw, request)
                paid = self._price(request, *usage[:2])
                self.store.finish(
                    key, self.backend.identity, request, raw, usage=usage, dollars=paid
                )
                return Reply(raw, "", Cost(sent, 0, usage[0], usage[1]))
            except Refused as failure:
                paid = most if failure.lost else 0.0
                self.store.fail(number, f"{failure.reason}: {failure.detail}", lost=failure.lost)
                return Reply(None, failure.reason, Cost(requests=sent))
            except Transient as failure:
                paid = most if failure.lost else 0.0
                self.store.fail(number, f"{failure.reason}: {failure.detail}", lost=failure.lost)
                reason = failure.reason
                if failure.retry_after:
                    until = time.monotonic() + failure.retry_after
                    self._quiet_until = max(self._quiet_until, until)
                elif attempt + 1 < self._attempts:
                    longest = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
                    await self._stopped_within(longest * random.uniform(0.5, 1.0))
            except BaseException as error:
                with suppress(StateError):  # the store may be what fails
                    if number:
                        self.store.fail(number, type(error).__name__)
                raise
            finally:
                self._settle(most, paid)
        return Reply(None, reason, Cost(requests=sent))

    async def _stopped_within(self, seconds: float) -> bool:
        """Wait so long, or until the run is stopped, and say whether it is."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), seconds)
        return self._stop.is_set()

    def _halt(self) -> None:
        """Begin nothing new."""
        self._stop.set()
        self._settled.set()

    def _price(self, request: Request, tokens_in: int, tokens_out: int) -> float:
        if self.prices is None:
            return 0.0
        return self.prices.dollars(request.model, tokens_in, tokens_out)

    async def _reserve(self, dollars: float) -> None:
        """Set the highest price aside; over the budget, wait for what is under way."""
        while self.budget is not None and not self._stop.is_set():
            if self._spent + self._reserved + dollars <= self.budget:
                break
            if self._reserved == 0:
                raise BudgetError(
                    f"the budget of ${self.budget:g} is spent: ${self._spent:.4f} so far, and "
                    f"the next request may take ${dollars:.4f}; all "
                    f"{self.store.spent().answers} answers are saved in "
                    f"{str(self.store.path)!r}, so repeat the same command with a larger "
                    "budget to go on"
                )
            self._settled.clear()
            await self._settled.wait()
        self._reserved += dollars

    def _settle(self, reserved: float, paid: float) -> None:
        self._reserved -= reserved
        self._spent += paid
        if self._reserved < 1e-12:  # what is left is rounding
            self._reserved = 0.0
        self._settled.set()


Exchange = Callable[[Request, str], Awaitable[dict[str, Any]]]


def _exchange(backend: Backend, concurrency: int) -> tuple[Exchange, Callable[[], object]]:
    """How a request is sent in the loop, and what closes the connections.

    A backend that blocks has a thread for each of its requests.
    """
    send: Any = backend.send
    closing: Any = getattr(backend, "close", lambda: None)
    if inspect.iscoroutinefunction(send):
        return send, lambda: background.finish(closing())
    threads = ThreadPoolExecutor(concurrency)

    async def exchange(request: Request, key: str) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads, send, request, key)

    def close() -> None:
        threads.shutdown()
        closing()

    return exchange, close
