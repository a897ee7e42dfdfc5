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
from polycode_plugins.explainers.language_model.transport import background
from polycode_plugins.explainers.language_model.transport.answer_store import Store
from polycode_plugins.explainers.language_model.transport.budget import Budget
from polycode_plugins.explainers.language_model.transport.failures import (
    Refused,
    RemoteError,
    Transient,
    Unreadable,
)
from polycode_plugins.explainers.language_model.transport.pace import Pace
from polycode_plugins.explainers.language_model.transport.request import Request, usage_of
from polycode_plugins.explainers.language_model.transport.server import Backend
from polycode_plugins.progress import bar

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
HOPELESS = 10  # answers in vain, and none that says what was asked, after which a run stops
_DOING = {"explain": "explanations", "simulate": "simulations", "judge": "judgements"}
_HELP = {"judge": "; without judging (--no-judge) the rest may work"}


@dataclass(frozen=True, eq=False)
class Reply:
    """What came of a request: the answer and what it says, or the reason why there is none."""

    raw: dict[str, Any] | None
    reason: str
    cost: Cost
    value: Any = None


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

    @property
    def cost(self) -> Cost:
        """The same as a `Cost`."""
        return Cost(
            sum(self.requests.values()), self.stored, self.prompt_tokens, self.completion_tokens
        )


class Session:
    """One backend, its store, and what may be spent.

    An answer is read as soon as it has come. One that does not say what was asked for is written
    down as an attempt, never as an answer, so a later run asks again.

    Args:
        backend: what answers.
        store: where answers are kept.
        budget: shared with the other sessions of the store; by default nothing is counted.
        concurrency: requests under way at most; fewer where the server does not keep up (`Pace`).
        attempts: how often a request is sent at most, where it fails for a passing reason.
        progress: show a bar on standard error.

    Raises:
        DataError: for numbers that are out of range.
    """

    def __init__(
        self,
        backend: Backend,
        store: Store,
        *,
        budget: Budget | None = None,
        concurrency: int = 32,
        attempts: int = 6,
        progress: bool = False,
    ) -> None:
        if concurrency < 1 or attempts < 1:
            raise DataError("concurrency and attempts must be at least 1")
        self.backend, self.store = backend, store
        self.budget = budget if budget is not None else Budget(store)
        self.pace = Pace(concurrency, getattr(backend, "timeout", None))
        self._attempts, self._progress = attempts, progress
        self._stop = asyncio.Event()
        self._exchange, close = _exchange(backend, concurrency)
        self._closing = weakref.finalize(self, close)  # where it is forgotten, too
        self._quiet_until = 0.0  # on the monotonic clock: when a server asked us to wait, all wait
        self._read: Counter[str] = Counter()  # answers that say what was asked, by purpose
        self._vain: dict[str, Counter[str]] = {}  # reasons of the others, by purpose

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
            dollars += self.budget.price(request, tokens_in, request.most_out)
        priced = self.budget.prices is not None
        return Plan(dict(counts), stored, sent, received, dollars if priced else None)

    def stored(self, request: Request) -> Reply | None:
        """The answer in the store; None where there is none that says what was asked for."""
        key = request.key(self.backend.identity)
        found = self.store.answers([key])
        if not found:
            return None
        raw, cost = found[key]
        try:
            return Reply(raw, "", cost, _value(request, raw))
        except Unreadable:
            return None

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """An answer or a failure for each request, in order.

        Raises:
            BudgetError: when the next request could exceed the budget.
            RemoteError: when no request can succeed, or none of the first `HOPELESS` has. In all
                cases, and when it is interrupted, what is under way is waited for and kept.
        """
        keys = [request.key(self.backend.identity) for request in requests]
        todo = dict(zip(keys, requests, strict=True))
        replies = self._kept(todo)
        replies.update(self._send_all({k: r for k, r in todo.items() if k not in replies}))
        first: set[str] = set()
        answers = []
        for key in keys:  # what was asked twice was sent once, and is counted once
            reply = replies[key]
            if key in first:
                cost = FREE if reply.raw is None else Cost(stored=1)
                reply = Reply(reply.raw, reply.reason, cost, reply.value)
            answers.append(reply)
            first.add(key)
        return answers

    def close(self) -> None:
        """Close the connections and the store."""
        self._closing()
        self.store.close()

    def _kept(self, todo: dict[str, Request]) -> dict[str, Reply]:
        """What the store has of these; an answer that says nothing becomes an attempt."""
        replies: dict[str, Reply] = {}
        for key, (raw, cost) in self.store.answers(list(todo)).items():
            try:
                replies[key] = Reply(raw, "", cost, _value(todo[key], raw))
            except Unreadable as error:
                self.store.withdraw(key, str(error))
            else:
                self._read[todo[key].purpose] += 1
        return replies

    def _send_all(self, new: dict[str, Request]) -> dict[str, Reply]:
        if not new:
            return {}
        self._stop.clear()
        with bar("asking", "request", len(new), self._progress, leave=False) as shown:
            return background.run(self._side_by_side(new, shown.update), interrupted=self._halt)

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

        tasks = [asyncio.create_task(go_on()) for _ in range(min(self.pace.most, len(new)))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failures = [t.exception() for t in tasks if t.done() and t.exception() is not None]
        self._halt()
        await asyncio.gather(*tasks, return_exceptions=True)
        for failure in failures:
            assert failure is not None
            raise failure  # what stopped the run
        return replies

    async def _send(self, key: str, request: Request) -> Reply:
        most = self.budget.most(request)
        reason, sent, left = "the run was stopped", 0, self._attempts
        while left:
            left -= 1
            await self.budget.reserve(most, self._stop)
            paid = 0.0
            try:
                async with self.pace.turn() as began:
                    if await self._stopped_within(self._quiet_until - began):
                        break
                    sent, together = sent + 1, self.pace.limit > 1
                    reply, paid = await self._attempt(key, request, most, sent)
                if reply.raw is None:
                    self._in_vain(request, reply.reason)
                return reply
            except Transient as failure:
                paid = most if failure.lost else 0.0
                reason = failure.reason
                if failure.busy or failure.slow:
                    # Of those that were sent together some only waited in the server: what is
                    # too slow beside others is asked again alone before it is given up.
                    left += failure.slow and together
                    self.pace.overloaded(began)
                if failure.retry_after:
                    until = time.monotonic() + failure.retry_after
                    self._quiet_until = max(self._quiet_until, until)
                elif left:
                    longest = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (sent - 1))
                    await self._stopped_within(longest * random.uniform(0.5, 1.0))
            finally:
                self.budget.settle(most, paid)
        self._in_vain(request, reason)
        return Reply(None, reason, Cost(requests=sent))

    async def _attempt(
        self, key: str, request: Request, most: float, sent: int
    ) -> tuple[Reply, float]:
        """Send it once: what came of it, and the dollars that were paid.

        Raises:
            Transient: where another attempt may help; it is written down, as all others are.
        """
        began = time.monotonic()
        number = self.store.begin(key, request.purpose, most)
        try:
            raw = await self._exchange(request, key)
            usage = usage_of(raw, request)
            paid = self.budget.price(request, *usage[:2])
            self.pace.answered(request.purpose, began)
            cost = Cost(sent, 0, usage[0], usage[1])
            try:
                value = _value(request, raw)
            except Unreadable as error:
                self.store.reject(number, str(error), usage, paid)
                return Reply(None, str(error), cost), paid
            self.store.finish(key, self.backend.identity, request, raw, usage=usage, dollars=paid)
            self._read[request.purpose] += 1
            return Reply(raw, "", cost, value), paid
        except Refused as failure:
            self.store.fail(number, f"{failure.reason}: {failure.detail}", lost=failure.lost)
            paid = most if failure.lost else 0.0
            return Reply(None, failure.reason, Cost(requests=sent)), paid
        except Transient as failure:
            self.store.fail(number, f"{failure.reason}: {failure.detail}", lost=failure.lost)
            raise
        except BaseException as error:
            with suppress(StateError):  # the store may be what fails
                self.store.fail(number, type(error).__name__)
            raise

    def _in_vain(self, request: Request, reason: str) -> None:
        """Count a failure; where nothing but failures came so far, the run is stopped."""
        if request.purpose == "probe" or self._stop.is_set():
            return
        reasons = self._vain.setdefault(request.purpose, Counter())
        reasons[reason] += 1
        if self._read[request.purpose] == 0 and reasons.total() >= HOPELESS:
            [(most, count)] = reasons.most_common(1)
            raise RemoteError(
                f"the first {reasons.total()} {_DOING[request.purpose]} by {request.model!r} at "
                f"{self.backend.identity} all failed, {count} of them because {most}; what was "
                "answered is saved, so mend this and repeat the same command"
                + _HELP.get(request.purpose, "")
            )

    async def _stopped_within(self, seconds: float) -> bool:
        """Wait so long, or until the run is stopped, and say whether it is."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), seconds)
        return self._stop.is_set()

    def _halt(self) -> None:
        """Begin nothing new."""
        self._stop.set()
        self.budget.release()
        self.pace.release()


def _value(request: Request, raw: dict[str, Any]) -> Any:
    """What an answer says.

    Raises:
        Unreadable: where it does not say what was asked for.
    """
    try:
        return request.read(raw)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise Unreadable("the answer has a form that was not foreseen") from error


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
        # One of the threads may call this: the request that it lets go of last holds the session.
        threads.shutdown(wait=False)
        closing()

    return exchange, close
