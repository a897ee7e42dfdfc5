"""The beginning of the page: what was found, a picture over layers, and the doubts, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from polycode_plugins.metrics.base import Grave
from polycode_plugins.metrics.chapter import View, is_number, main_scalar
from polycode_plugins.metrics.site_warnings import SiteWarning
from polycode_plugins.pages.depth_charts import families
from polycode_plugins.pages.heat_maps import HeatMap, HeatRow
from polycode_plugins.pages.pages import Part, Prose, Section
from polycode_plugins.pages.tables import titled
from polycode_plugins.runs.stopping import sentences

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
    found = [sentence for view in views for sentence in findings_of(view)]
    found += [f"{said[:1].upper()}{said[1:]}." for said in sentences(analysis.run)]
    if found:
        parts.append(Prose(found))
    if rows := [row for view in views for row in _rows(view)]:
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
        parts.append(doubts(warnings))
    return Section("found", "What was found", parts)


def findings_of(view: View) -> list[str]:
    """The findings that the results bring, see `Result.findings`; a third party's may fail."""
    kind = type(view.results[0])
    try:
        return [str(sentence) for sentence in kind.findings(view)]
    except Exception as error:  # a plugin may raise anything
        return [f"The findings of {kind.__name__} failed with {type(error).__name__}: {error}"]


def doubts(warnings: Sequence[SiteWarning]) -> Doubts:
    """The warnings, the grave ones first, and those of many sites before those of few."""
    ordered = sorted(warnings, key=lambda w: -len(w.sites))
    groups = []
    for heading, grave in ((GRAVE, True), (CARE, False)):
        entries = [(f"{w.metric}:", str(w)) for w in ordered if w.grave is grave]
        if entries:
            groups.append((heading, entries))
    return Doubts(groups)


def _rows(view: View) -> list[HeatRow]:
    """A row for each quantity that the results map, for each family of sites."""
    kind = type(view.results[0])
    scalars = [result.scalars() for result in view.results]
    main = main_scalar(scalars, kind.headline)
    fields = list(kind.mapped) or ([main] if main is not None else [])
    # A grave warning is about the first number alone.
    grave = [any(isinstance(w, Grave) for w in result.warnings) for result in view.results]
    care = [any(not isinstance(w, Grave) for w in result.warnings) for result in view.results]
    groups = families(view.sites)
    rows = []
    for field in fields:
        values = [row.get(field) for row in scalars]
        numbers = [float(v) if is_number(v) else None for v in values]
        if all(v is None for v in numbers):
            continue
        name = titled(field, kind.units, kind.names)
        for family, members in groups:
            rows.append(
                HeatRow(
                    f"{name}, {family}" if len(groups) > 1 else name,
                    [view.sites[i].name for i in members],
                    [numbers[i] for i in members],
                    [care[i] or (grave[i] and field == fields[0]) for i in members],
                )
            )
    return rows
