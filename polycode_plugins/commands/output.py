"""Standard output: for results, when a program reads them."""

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
            os.dup2(os.open(os.devnull, os.O_WRONLY), _alone.fileno())
        raise
    finally:
        sys.stdout = usual
        if _alone is not None and kept is not None:
            _alone.close()
            usual.flush()
            os.dup2(kept, 1)
            os.close(kept)
        _alone = None
