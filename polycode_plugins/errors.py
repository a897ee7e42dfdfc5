"""The errors a user can cause: each says what happened, why, and what to do next.

The command line prints the message of a `PolycodeError` as one sentence and exits with 2; anything
else that escapes is a defect of this package.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PolycodeError(Exception):
    """Something that was asked for cannot be done; the message says why and what to do."""


class PolycodeWarning(UserWarning):
    """Something that was not asked for was passed over; the message says what and why."""


class PluginError(PolycodeError):
    """A plugin is unknown, broken, or claimed by two distributions."""


class ModelError(PolycodeError):
    """A model cannot be found, loaded, or handled by the adapter asked for."""


class SiteError(PolycodeError):
    """A site does not exist, does not fire, or is ambiguous."""


class DataError(PolycodeError):
    """The inputs, or the activations they cause, cannot be used."""


class StateError(PolycodeError):
    """Saved state is damaged, from another analysis, or written by a newer version."""


def near(name: str, known: Iterable[str], *, limit: int = 3) -> str:
    """A clause that suggests the names closest to `name`, ready to append to a message.

    Returns an empty string where nothing is close, so that a wild guess is never printed.
    """
    close = difflib.get_close_matches(name, list(known), n=limit, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
