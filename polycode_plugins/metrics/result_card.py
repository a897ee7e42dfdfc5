"""A result in a few lines: its headline, what is doubtful of it, and its plot."""

from __future__ import annotations

from typing import Any

from polycode_plugins.metrics.base import Grave, Result
from polycode_plugins.metrics.chapter import interval_of, is_number, main_scalar
from polycode_plugins.pages.cards import Card
from polycode_plugins.pages.pictures import picture_of
from polycode_plugins.pages.tables import UNDEFINED, titled

_FIELDS = 6  # of a result that names no headline


def result_card(result: Result, *, drawn: bool) -> Card:
    """The headline, the warnings and, if `drawn`, the plot where the result has one."""
    scalars = result.scalars()
    fields = [f for f in result.headline if f in scalars] or list(scalars)[:_FIELDS]
    ends = {f for f in fields if f.endswith(("_low", "_high"))}
    first = main_scalar([scalars])
    said = []
    for field in fields:
        if field in ends:  # stand beside what they are the ends of
            continue
        interval = interval_of(result, None if field == first else field)
        bounds = f" ({interval[0]:.4g} to {interval[1]:.4g})" if interval else ""
        name = titled(field, result.units, result.names)
        said.append(f"{name} {_shown(scalars[field])}{bounds}")
    doubts = result.warnings
    doubts = (doubts,) if isinstance(doubts, str) else tuple(doubts or ())
    return Card(
        type(result).__name__,
        [", ".join(said)] if said else [],
        sorted(map(_kept, doubts), key=lambda text: not isinstance(text, Grave)),
        "result.warnings",
        _plot(result) if drawn else "",
    )


def _kept(text: Any) -> str:
    return text if isinstance(text, str) else str(text)


def _shown(value: Any) -> str:
    if value is None:
        return UNDEFINED
    if isinstance(value, float):
        return f"{value:.4g}" if is_number(value) else UNDEFINED
    return str(value)


def _plot(result: Result) -> str:
    if type(result).plot is Result.plot:
        return ""
    try:
        return picture_of(result.plot)
    except Exception:  # a plugin's may raise anything; a notebook then shows no picture
        return ""
