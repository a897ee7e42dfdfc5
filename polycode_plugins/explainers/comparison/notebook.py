"""A comparison in a few lines: as a terminal and a notebook show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polycode_plugins.explainers.comparison.answer import answers
from polycode_plugins.pages.cards import Card
from polycode_plugins.pages.pictures import picture_of

if TYPE_CHECKING:
    from polycode_plugins.explainers.comparison.outcome import Comparison


def card(comparison: Comparison, *, drawn: bool) -> Card:
    """What it says, what could not be done and, if `drawn`, the picture layer by layer."""
    title = (
        f"Comparison({len(comparison)} units of {len(comparison.sites)} sites, "
        f"kinds: {', '.join(comparison.kinds)}, "
        f"explainer: {comparison.run['explainer']['explainer']})"
    )
    doubts = [str(warning) for warning in comparison.run.get("warnings", ())]
    doubts += [
        f"{n} of {len(comparison)} units have no explanation: {reason}"
        for reason, n in comparison.failures.items()
    ]
    image = picture_of(comparison.plot) if drawn and len(comparison) else ""
    said = answers(comparison) if len(comparison.kinds) > 1 else []
    return Card(title, said, doubts, "comparison.run['warnings'] and comparison.failures", image)
