"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def given(path: str | os.PathLike[str]) -> Path:
    """A path that somebody gave, with his home for a `~` at its beginning.

    A shell leaves it there behind an equals sign and in quotes; pandas puts the home in its place
    when it writes a table, beside which nothing else of a run would then lie.
    """
    return Path(os.path.expanduser(path))
