"""What was measured, in words for a newcomer, and the record from which to measure it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from polycode_plugins.pages.pages import Copyable, Facts, Part, Prose, Section
from polycode_plugins.runs.description import (
    count,
    data_text,
    model_name,
    model_text,
    python_call,
    record_text,
    sites_text,
    span,
)

if TYPE_CHECKING:
    from polycode_plugins.runs.analysis import Analysis


def title(analysis: Analysis) -> str:
    """The page's heading."""
    return f"Analysis of {model_name(analysis.run) or count(len(analysis), 'site')}"


def made(analysis: Analysis) -> str:
    """When and with what it was made."""
    run = analysis.run
    parts = [f"polycode-plugins {run.get('polycode-plugins', '')}".strip()]
    if run.get("created"):
        parts.append(str(run["created"]).replace("T", " ").replace("+00:00", " UTC"))
    return " · ".join(parts)


def overview(analysis: Analysis, titles: Sequence[str]) -> Section:
    """What was measured, under which `titles`, and how to read the page."""
    run, sites = analysis.run, analysis.sites
    notes = (run.get("model") or {}).get("notes")  # what the adapter has to say of its model
    facts = [
        ("Model", model_text(run)),
        ("Data", data_text(run)),
        ("Samples", span([analysis.n_samples(s.name) for s in sites]) + " per site"),
        ("Sites", f"{len(sites)}: {sites_text([s.name for s in sites])}"),
        ("Metrics", ", ".join(titles)),
    ]
    parts: list[Part] = [
        Facts(facts),
        *([Prose(list(map(str, notes)))] if notes else []),
        Prose(
            [
                "A site is a place in the network where activations were recorded. Its depth is "
                "its place in the order in which the sites fire, counted from 0. A sample is one "
                "vector of activations, for example that of one token or of one position in an "
                "image; its length is the width of the site.",
                "Each section below asks one question of every site. It says first how to read the "
                "answer, then shows it by depth, and ends with a table of all numbers.",
            ]
        ),
        Prose(
            [
                "Point at a chart, or tap it, to see which site a mark stands for. Drag to zoom "
                "in, double-click to zoom out. Click the heading of a column to sort by it.",
            ],
            interactive=True,
        ),
    ]
    return Section("measured", "What was measured", parts)


def record_section(analysis: Analysis) -> Section:
    """The command or call that made the analysis, and everything that was recorded with it."""
    commands = analysis.run.get("commands") or [analysis.run.get("command")]
    lines = "\n".join(str(command) for command in commands if command)
    call = (
        Copyable("command", "Command" if len(commands) == 1 else "Commands", lines)
        if lines
        else Copyable("command", "Call in Python", python_call(analysis))
    )
    return Section(
        "record",
        "Record",
        [
            Prose(
                ["What it takes to make this analysis again, and to tell whether it is the same."]
            ),
            call,
            Copyable("run", "Versions, seed, data and options", record_text(analysis.run)),
        ],
    )
