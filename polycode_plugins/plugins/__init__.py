"""Adapters, metrics, explainers and experiments of any distribution, found by entry points.

Listing reads the metadata of installed distributions and imports nothing; a plugin is imported when
it is used. The built-in plugins are declared in the same entry-point groups and take the same path;
what is said for them is that a name of theirs is not taken over by a third party's, and that their
code is tried in no process of its own first.
"""

from polycode_plugins.plugins.catalogue import (
    DISTRIBUTION,
    KINDS,
    Kind,
    Plugin,
    arrange,
    find,
    get,
    unreadable,
)
from polycode_plugins.plugins.foreign import cause, contained, missing_extra, remedy
from polycode_plugins.plugins.importing import imported, load, load_case, why_broken
from polycode_plugins.plugins.trial import Outcome, broken, claim, tried

__all__ = [
    "DISTRIBUTION",
    "KINDS",
    "Kind",
    "Outcome",
    "Plugin",
    "arrange",
    "broken",
    "cause",
    "claim",
    "contained",
    "find",
    "get",
    "imported",
    "load",
    "load_case",
    "missing_extra",
    "remedy",
    "tried",
    "unreadable",
    "why_broken",
]
