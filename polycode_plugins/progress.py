"""How far a run is, on standard error: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

#: Seconds between two lines where there is no terminal.
PAUSE = 10.0


class Bar(Protocol):
    """What counts."""

    def update(self, n: int = 1) -> Any:
        """`n` more are done."""


class _Silent:
    def update(self, n: int = 1) -> None:
        return


class _Lines:
    """A line at the beginning of each pause, one at the end if there was any before."""

    def __init__(self, what: str, unit: str, total: int | None, *, most: bool) -> None:
        self._what, self._unit, self._total, self._most = what, unit, total, most
        self._done = 0
        self._began = self._said = time.monotonic()

    def update(self, n: int = 1) -> None:
        self._done += n
        if time.monotonic() - self._said >= PAUSE:
            self.say()

    def say(self) -> None:
        self._said = time.monotonic()
        print(self.line(self._said - self._began), file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._said > self._began:
            self.say()

    def line(self, seconds: float) -> str:
        """Where it is after `seconds`."""
        total = "" if self._total is None else f" of {'at most ' * self._most}{self._total:,}"
        parts = [f"{self._what}: {self._done:,}{total} {self._unit}s", span(seconds)]
        if self._total is not None and 0 < self._done < self._total:
            left = seconds * (self._total - self._done) / self._done
            parts.append(f"{'at most ' * self._most}{span(left)} left")
        return ", ".join(parts)


def span(seconds: float) -> str:
    """A time in words: 48 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def bar(
    what: str,
    unit: str,
    total: int | None = None,
    progress: bool | None = None,
    *,
    most: bool = False,
    leave: bool = True,
) -> Iterator[Bar]:
    """Shows how far something is, with the time left where the total is known.

    Args:
        what: is being done.
        unit: what is counted, in the singular.
        total: how many there are; None where nobody knows.
        progress: False for silence, True for a bar on a terminal and lines elsewhere, None for a
            bar on a terminal alone.
        most: whether there may be fewer than `total`.
        leave: whether the bar stays when it is done.
    """
    terminal = sys.stderr.isatty()
    if progress is False or (progress is None and not terminal):
        yield _Silent()
    elif terminal:
        from tqdm import tqdm

        label = f"{what} (at most)" if most and total is not None else what
        with tqdm(total=total, desc=label, unit=unit, file=sys.stderr, leave=leave) as shown:
            yield shown
    else:
        lines = _Lines(what, unit, total, most=most)
        yield lines
        lines.close()
