"""How many requests are under way at once: as many as were asked for, if the server keeps up.

A server that answers one request at a time makes all others wait in it, and a request that waits
there runs into its time-out and has to be sent again. So there is one request first, one more for
each X"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SOON = 1 / 8  # of the time-out
LATE = 1 / 4  # of the time-out
ALONE = 1.5  # times what a request took alone
_MEMORY = 0.3  # weight of the last answer in a running mean
_WINDOW = 8  # answers of which the rate is taken, at least


class Pace:
    """A gate that lets at most `most` requests pass at once.

    Args:
        most: requests under way at most.
        timeout: seconds that one may take; None where there is no server to overload.
    """

    def __init__(self, most: int, timeout: float | None) -> None:
        self.most, self.timeout = most, timeout
        self.limit = most if timeout is None else 1
        self.under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._alone: dict[str, float] = {}
        self._came: deque[float] = deque()
        self._good = 0
        self._cut_at = 0.0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[float]:
        """Wait for a turn; gives the time at which it began."""
        while self.under_way >= self.limit:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            finally:
                if not waiter.done() or waiter.cancelled():
                    self._waiting.remove(waiter)
        self.under_way += 1
        try:
            yield time.monotonic()
        finally:
            self.under_way -= 1
            self._wake()

    def answered(self, kind: str, began: float) -> None:
        """A request of one kind (short or long) came back."""
        if self.timeout is None:
            return
        now = time.monotonic()
        if self.limit == 1:
            self._alone[kind] = _mean(self._alone.get(kind), now - began)
        self._came.append(now)
        while len(self._came) > max(_WINDOW, self.limit):
            self._came.popleft()
        wait = max(now - began, self._expected())
        soon = wait <= max(SOON * self.timeout, ALONE * self._alone.get(kind, 0.0))
        # Two of which one waits for the other must not be too slow together.
        soon = soon and (self.limit > 1 or 2 * wait < 0.9 * self.timeout)
        self._good += 1
        if not soon and wait > 2 * LATE * self.timeout:
            self._set(self.limit - 1)
        elif self._waiting and self.limit < self.most:
            # Where requests wait for each other, more of them gain nothing; but that one alone was
            # quick may have been luck.
            late = wait > LATE * self.timeout
            if soon or (not late and self._good >= 4 * self.limit):
                self._set(self.limit + 1)

    def _expected(self) -> float:
        """What a request that is sent now takes at today's rate, if all wait for each other.

        What has come back tells of the time when it was sent, with fewer under way.
        """
        if len(self._came) < 2:
            return 0.0
        interval = (self._came[-1] - self._came[0]) / (len(self._came) - 1)
        return self.limit * interval

    def overloaded(self, began: float) -> None:
        """The server has too much to do: half as many, once for all that were sent together."""
        if began > self._cut_at:
            self._cut_at = time.monotonic()
            self._set(self.limit // 2)

    def release(self) -> None:
        """Let all that wait pass, since nothing is sent any more."""
        while self._waiting:
            self._pop()

    def _set(self, limit: int) -> None:
        self.limit, self._good = max(1, min(limit, self.most)), 0
        self._wake()

    def _wake(self) -> None:
        for _ in range(self.limit - self.under_way):
            if not self._waiting:
                return
            self._pop()

    def _pop(self) -> None:
        waiter = self._waiting.popleft()
        if not waiter.done():
            waiter.set_result(None)


def _mean(before: float | None, new: float) -> float:
    return new if before is None else before + _MEMORY * (new - before)
