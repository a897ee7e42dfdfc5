"""The measurements of a training run on one page: curves over steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polycode_plugins._version import __version__
from polycode_plugins.metrics.base import Result
from polycode_plugins.metrics.names import rebuild_metrics
from polycode_plugins.pages.charts import Axis, Chart, Choice, Series
from polycode_plugins.pages.escaping import printable
from polycode_plugins.pages.pages import Page, Part, Prose, Section
from polycode_plugins.pages.tables import Cell, Column, Table, column, names, titled
from polycode_plugins.report.summary import Doubts
from polycode_plugins.runs.description import count, model_name, model_text
from polycode_plugins.training.history import History, Number

STEP = Axis("optimiser steps", whole=True)
#: Sites whose curves are drawn at first; the others can be ticked.
DRAWN = 8
LIKENESS = "to_first"


def page_of(history: History) -> Page:
    """The page of curves over steps."""
    kinds = {m.label: m.result for m in rebuild_metrics(history.record.get("metrics", ()))}
    quantities = history.quantities()
    sections = [
        Section("found", "What changes", _summary(history)),
        *(
            Section(
                f"metric-{number}",
                _title(label, kinds),
                [_chart(history, name, kinds) for name in quantities if _label(name) == label],
            )
            for number, label in enumerate(dict.fromkeys(map(_label, quantities)))
        ),
        Section("numbers", "First and last", [_table(history, kinds)]),
    ]
    model = model_name({"model": history.record.get("model")})
    steps = [point.step for point in history]
    span = f" · steps {min(steps):,} to {max(steps):,}" if steps else ""
    return Page(
        f"Over the steps of training{f' ({model})' if model else ''}",
        f"polycode-plugins {__version__} · {count(len(history), 'measurement')}{span}",
        [section for section in sections if section.parts],
    )


def _summary(history: History) -> list[Part]:
    rows = int(history.record["rows"]["count"])
    seconds = sum(point.seconds for point in history)
    said = [
        f"{count(len(history.sites), 'site')} of {model_text({'model': history.record['model']})}, "
        f"measured {count(len(history), 'time')} on the same {count(rows, 'row')}; this took "
        f"{seconds:,.3g} seconds in all.",
    ]
    for name in history.quantities():
        moved = [
            (site, numbers[0], numbers[-1])
            for site in history.sites
            for _, numbers in [history.curve(site, name)]
            if len(numbers) > 1
        ]
        if not moved:
            continue
        site, first, last = max(moved, key=lambda one: abs(one[2][0] - one[1][0]))
        within = ", whose intervals meet" if _meet(first, last) else ""
        said.append(
            f"{_spoken(name)} moves most at {site}: from {_shown(first)} to {_shown(last)}{within}."
        )
    parts: list[Part] = [Prose(said)]
    failed = [
        (f"step {point.step:,}{f', {site}' if site else ''}:", why)
        for point in history
        for site, why in point.problems.items()
    ]
    if failed:
        more = [("", f"and {len(failed) - 20} more")] if failed[20:] else []
        parts.append(Doubts([("What could not be measured", [*failed[:20], *more])]))
    return parts


def _chart(history: History, name: str, kinds: Mapping[str, type[Result]]) -> Chart:
    sites = [site for site in history.sites if history.curve(site, name)[0]]
    last = max(len(sites) - 1, 1)
    every = max(1, -(-len(sites) // DRAWN))
    series, choices = [], []
    bars = False
    for i, site in enumerate(sites):
        steps, numbers = history.curve(site, name)
        known = any(low is not None for _, low, _ in numbers)
        bars |= known
        colour = f"scale:{i / last:.3f}"
        series.append(
            Series(
                site,
                steps,
                [value for value, _, _ in numbers],
                colour,
                "solid",
                "circle",
                low=[low for _, low, _ in numbers] if known else None,
                high=[high for _, _, high in numbers] if known else None,
                hover=[
                    [site, f"step {step:,}", _shown(number)]
                    for step, number in zip(steps, numbers, strict=True)
                ],
                key=f"curve-{i}",
                shown=i % every == 0 or i == len(sites) - 1,
                legend=False,
            )
        )
        choices.append(Choice(site, colour, {"curve": f"curve-{i}"}))
    several = len(sites) > 1
    caption = "Each line is a site."
    if name.endswith(f".{LIKENESS}"):
        caption += (
            " CKA of its code with what it was at the first measurement, on the same rows: 1 for "
            "the same code up to rotation and scale, 0 for an independent one."
        )
    caption += " The bars are 95% intervals." if bars else ""
    if every > 1:
        caption += " Some sites are drawn at first; the list has all of them."
    return Chart(
        "curve-" + "".join(c if c.isalnum() else "-" for c in name),
        f"{_spoken(name)} over steps",
        caption,
        STEP,
        Axis(_axis(name, kinds)),
        series,
        scale=("first site", "last site") if several else None,
        choices=choices if several else (),
    )


def _table(history: History, kinds: Mapping[str, type[Result]]) -> Table:
    rows: list[tuple[str, str, int, Number, int, Number]] = []
    for site in history.sites:
        for name in history.quantities():
            steps, numbers = history.curve(site, name)
            if steps:
                rows.append((site, name, steps[0], numbers[0], steps[-1], numbers[-1]))

    def cells(values: list[tuple[int, Number]]) -> list[Cell]:
        return [Cell(f"{_shown(n)} (step {step:,})", repr(n[0])) for step, n in values]

    return Table(
        "numbers-table",
        "All sites",
        [
            names("site", [row[0] for row in rows]),
            column("quantity", [_axis(row[1], kinds) for row in rows]),
            Column("first", cells([(row[2], row[3]) for row in rows]), numeric=True),
            Column("last", cells([(row[4], row[5]) for row in rows]), numeric=True),
        ],
    )


def _label(name: str) -> str:
    return name.rpartition(".")[0]


def _title(label: str, kinds: Mapping[str, type[Result]]) -> str:
    title = kinds[label].title if label in kinds else ""
    title = title or label
    return printable(title[:1].upper() + title[1:])


def _spoken(name: str) -> str:
    field = name.rpartition(".")[2]
    said = "CKA to the first measurement" if field == LIKENESS else field.replace("_", " ")
    return said[:1].upper() + said[1:]


def _axis(name: str, kinds: Mapping[str, type[Any]]) -> str:
    label, _, field = name.rpartition(".")
    if field == LIKENESS or label not in kinds:
        return _spoken(name)
    return titled(field, kinds[label].units, kinds[label].names)


def _shown(number: Number) -> str:
    value, low, high = number
    if low is None or high is None:
        return _short(value)
    return f"{_short(value)} [{_short(low)}, {_short(high)}]"


def _meet(first: Number, last: Number) -> bool:
    (_, low, high), (_, below, above) = first, last
    if low is None or high is None or below is None or above is None:
        return False
    return low <= above and below <= high


def _short(value: float) -> str:
    return f"{value:,.4g}".replace("-", "\u2212")
