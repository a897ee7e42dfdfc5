"""Standard output for results, standard error for people, and what happens when they have left."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_alone: TextIO | None = None


def print_result(text: str) -> None:
    """Print a result: the one thing that standard output holds under `--json`."""
    print(text, file=sys.stdout if _alone is None else _alone)


@contextmanager
def results_alone() -> Iterator[None]:
    """While open, whatever anybody else prints goes to standard error, also what C code prints.

    Raises:
        BrokenPipeError: when nobody reads the results any more.
    """
    global _alone
    usual: Any = sys.stdout
    kept = None
    of_the_system = usual is not None and usual is sys.__stdout__
    if not of_the_system:  # a test's, or a notebook's
        _alone = usual
    else:
        usual.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
        _alone = os.fdopen(os.dup(kept), "w", encoding=usual.encoding, errors=usual.errors)
    sys.stdout = sys.stderr
    try:
        yield
        if _alone is not None:
            _alone.flush()
    except BrokenPipeError:
        if _alone is not None and kept is not None:  # what is still to be written goes nowhere
            nowhere(_alone)
        raise
    finally:
        sys.stdout = usual
        if _alone is not None and kept is not None:
            _alone.close()
            usual.flush()
            os.dup2(kept, 1)
            os.close(kept)
        _alone = None


class Unread:
    """A stream whose reader may leave: what is written then goes nowhere, and ends nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if anybody reads."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._leave()
            return len(text)

    def flush(self) -> None:
        """Flush, if anybody reads."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._leave()

    def _leave(self) -> None:
        nowhere(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def nowhere(stream: TextIO) -> None:
    """Have everything that is still to be written to a stream go nowhere."""
    target = os.open(os.devnull, os.O_WRONLY)
    os.dup2(target, stream.fileno())
    os.close(target)


@contextmanager
def messages_unread() -> Iterator[None]:
    """While open, progress and messages to a closed pipe (`2>&1 | head`) do not end the run."""
    usual: Any = sys.stderr
    of_the_system = usual is not None and usual is sys.__stderr__
    if not of_the_system:
        yield
        return
    talk: Any = Unread(usual)
    sys.stderr = talk
    try:
        yield
    finally:
        talk.flush()
        sys.stderr = usual
