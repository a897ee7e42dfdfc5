"""The beginning of the page: what was found, a picture over layers, and the doubts, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from polycode_plugins.metrics.chapter import View, findings_of, heat_rows
from polycode_plugins.metrics.site_warnings import SiteWarning
from polycode_plugins.pages.heat_maps import HeatMap
from polycode_plugins.pages.pages import Part, Prose, Section

if TYPE_CHECKING:
    from polycode_plugins.runs.analysis import Analysis

GRAVE = "Not to be read"
CARE = "To be read with care"


@dataclass(frozen=True)
class Doubts:
    """Warnings by their weight, as (heading, [(question, sentence)])."""

    template: ClassVar[str] = "doubts.html.j2"
    groups: Sequence[tuple[str, Sequence[tuple[str, str]]]]


def summary(analysis: Analysis, views: Sequence[View]) -> Section:
    """What was found, per question one sentence or two; where; and what is doubtful."""
    parts: list[Part] = []
    if found := [sentence for view in views for sentence in findings_of(view)]:
        parts.append(Prose(found))
    if rows := [row for view in views for row in heat_rows(view)]:
        parts.append(
            HeatMap(
                "map",
                "Over the layers",
                "Each row is one quantity, each cell a site in the order in which the sites fire. "
                "Point at a cell to see its site and its number.",
                rows,
            )
        )
    if warnings := analysis.warnings:
        parts.append(doubts(warnings, {view.label: view.title for view in views}))
    return Section("found", "What was found", parts)


def doubts(warnings: Sequence[SiteWarning], titles: Mapping[str, str]) -> Doubts:
    """The warnings, the grave ones first, and those of many sites before those of few.

    Args:
        warnings: of the analysis.
        titles: {metric label: what the page calls it}.
    """
    ordered = sorted(warnings, key=lambda w: -len(w.sites))
    groups = []
    for heading, grave in ((GRAVE, True), (CARE, False)):
        entries = [
            (f"{titles.get(w.metric, w.metric)}:", str(w)) for w in ordered if w.grave is grave
        ]
        if entries:
            groups.append((heading, entries))
    return Doubts(groups)
