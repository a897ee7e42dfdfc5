"""Two runs side by side on one page: what differs, by metric and site, and how alike they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from polycode_plugins._version import __version__
from polycode_plugins.activations import Site
from polycode_plugins.metrics.base import Result
from polycode_plugins.metrics.cka.chapter import matrix
from polycode_plugins.pages.charts import Axis
from polycode_plugins.pages.depth_charts import Quantity, by_depth
from polycode_plugins.pages.heat_maps import HeatMap, HeatRow
from polycode_plugins.pages.pages import Copyable, Page, Part, Prose, Section
from polycode_plugins.pages.tables import Cell, Column, Table, column, names, titled
from polycode_plugins.report.summary import CARE, GRAVE, Doubts
from polycode_plugins.runs.description import (
    count,
    data_text,
    model_name,
    model_text,
    sites_text,
    span,
)

if TYPE_CHECKING:
    from polycode_plugins.runs.analysis import Analysis
    from polycode_plugins.runs.difference import Difference, RunDifference

#: Fields of a metric that are drawn.
DRAWN = 3
NOT_PAIRED = "not paired"


def page_of(found: RunDifference) -> Page:
    """The page that reports two runs side by side."""
    sections = [
        _summary(found),
        *(_metric_section(found, i, label) for i, label in enumerate(found.metrics)),
        _likeness(found),
        _compared(found),
        _record(found),
    ]
    one, other = (model_name(a.run) for a in (found.first, found.second))
    models = f" ({one})" if one and one == other else f": {one} and {other}" if one or other else ""
    return Page(
        f"{found.names[0]} and {found.names[1]} side by side{models}",
        f"polycode-plugins {__version__} · {count(len(found.pairs), 'site')} in both",
        sections,
    )


def sentences(found: RunDifference) -> list[str]:
    """What was found, one sentence for each metric and one for CKA."""
    said = []
    for label in found.metrics:
        for field in found.headline(label)[:1]:
            known = [d for d in found.of(label, field) if d is not None]
            if known:
                said.append(_sentence(found, label, field, known))
    told = {(label, field) for label in found.metrics for field in found.headline(label)}
    bounded = [d for d in found.differences if d.interval and (d.metric, d.field) in told]
    if bounded:
        evident = sum(d.evident for d in bounded)
        said.append(
            f"Of the {len(bounded)} differences below that have an interval {evident} are evident "
            f"(the interval leaves out 0); by chance alone about {len(bounded) / 20:.0f} would be."
        )
    if found.likeness is not None:
        same = {n: v for n, v in found.likeness.same().items() if v[0] == v[0]}
        if same:
            low, high = (f(same, key=lambda n: same[n][0]) for f in (min, max))
            said.append(
                f"The codes of the same site are alike by a CKA of {same[low][0]:.2f} ({low}) to "
                f"{same[high][0]:.2f} ({high})."
            )
    return said


def _sentence(found: RunDifference, label: str, field: str, known: Sequence[Difference]) -> str:
    name = _kind(found, label).names.get(field, field.replace("_", " "))
    most = max(known, key=lambda d: abs(d.difference))
    ends = (
        ""
        if most.interval is None
        else f" ({_short(most.interval[0])} to {_short(most.interval[1])})"
    )
    evident = sum(d.evident for d in known)
    bounded = sum(d.interval is not None for d in known)
    how = (
        f"The {name} differs evidently at {evident or 'none'} of {bounded} sites"
        if bounded
        else f"The {name} has no interval in both runs, so nothing tells whether it differs"
    )
    doubtful = sum(d.doubtful for d in known)
    if doubtful:
        how += f" (warnings at {doubtful} of {len(known)} stand below)"
    return (
        f"{label}: {how}; the most at {most.site}, by {_short(most.difference)}{ends}, from "
        f"{_short(most.first)} in {found.names[0]} to {_short(most.second)} in {found.names[1]}."
    )


def _summary(found: RunDifference) -> Section:
    parts: list[Part] = [Prose(sentences(found))]
    rows = []
    for label in found.metrics:
        kind = _kind(found, label)
        for field in found.headline(label)[:DRAWN]:
            held = found.of(label, field)
            rows.append(
                HeatRow(
                    titled(field, kind.units, kind.names),
                    [a for a, _ in found.pairs],
                    [None if d is None else d.difference for d in held],
                    [d is not None and d.doubtful for d in held],
                )
            )
    if rows:
        parts.append(
            HeatMap(
                "map",
                f"{found.names[1]} less {found.names[0]}, over the layers",
                "Each row is one quantity, each cell a site in the order in which the sites fire. "
                "Point at a cell to see its site and its number.",
                rows,
            )
        )
    groups = [("About the comparison", [("", note) for note in found.notes])] if found.notes else []
    runs = list(zip(found.names, (found.first, found.second), strict=True))
    for heading, grave in ((GRAVE, True), (CARE, False)):
        warnings = [
            (f"{name}, {w.metric}:", str(w))
            for name, analysis in runs
            for w in sorted(analysis.warnings, key=lambda w: -len(w.sites))
            if w.metric in found.metrics and w.grave is grave
        ]
        if warnings:
            groups.append((heading, warnings))
    if groups:
        parts.append(Doubts(groups))
    return Section("found", "What differs", parts)


def _metric_section(found: RunDifference, number: int, label: str) -> Section:
    kind = _kind(found, label)
    id, fields = f"metric-{number}", found.headline(label)
    sites = [s for s in found.first.sites if s.name in {a for a, _ in found.pairs}]
    parts: list[Part] = []
    for field in fields[:DRAWN]:
        parts += _charts(found, f"{id}-{field.replace('_', '-')}", label, field, sites)
    shown = [d for d in found.differences if d.metric == label and d.field in fields]
    if shown:
        parts.append(_table(f"{id}-table", kind, found, shown))
    changed = [c for c in found.changes if c[1] == label]
    if changed:
        parts.append(
            Table(
                f"{id}-changes",
                "What is said otherwise",
                [
                    names("site", [c[0] for c in changed]),
                    column("field", [c[2].replace("_", " ") for c in changed]),
                    column(found.names[0], [str(c[3]) for c in changed]),
                    column(found.names[1], [str(c[4]) for c in changed]),
                ],
            )
        )
    if not parts:
        parts.append(Prose(["The runs have no number in common."]))
    title = kind.title if kind.title and label == _metric_name(found, label) else label
    return Section(id, title[:1].upper() + title[1:], parts)


def _charts(
    found: RunDifference, id: str, label: str, field: str, sites: Sequence[Site]
) -> list[Part]:
    """The number in both runs by depth, and the difference where it has an interval."""
    kind, held = _kind(found, label), found.of(label, field)
    name = kind.names.get(field, field.replace("_", " "))
    ends = [
        [analysis[site, label].intervals().get(field) for site in chosen]
        for analysis, chosen in (
            (found.first, [a for a, _ in found.pairs]),
            (found.second, [b for _, b in found.pairs]),
        )
    ]
    axis = titled(field, kind.units, kind.names)
    values = [
        [None if d is None else d.first for d in held],
        [None if d is None else d.second for d in held],
    ]
    quantities = [
        _quantity(run, numbers, bounds)
        for run, numbers, bounds in zip(found.names, values, ends, strict=True)
    ]
    bars = " The bars are 95% intervals." if any(e for run in ends for e in run) else ""
    parts: list[Part] = [
        by_depth(
            id,
            f"{name[:1].upper()}{name[1:]} in both runs",
            f"Each point is a site of one run.{bars}",
            Axis(axis),
            sites,
            quantities,
        )
    ]
    gaps = [None if d is None else d.interval for d in held]
    if any(gaps):
        parts.append(
            by_depth(
                f"{id}-difference",
                f"Difference of the {name}",
                f"{found.names[1]} less {found.names[0]}, with its 95% interval: a bar that leaves "
                "out 0 is an evident difference.",
                Axis(f"difference of the {axis}"),
                sites,
                [
                    _quantity(
                        "difference", [None if d is None else d.difference for d in held], gaps
                    )
                ],
                level=(0.0, "no difference"),
            )
        )
    return parts


def _quantity(
    name: str, values: Sequence[float | None], bounds: Sequence[tuple[float, float] | None]
) -> Quantity:
    texts = []
    for value, ends in zip(values, bounds, strict=True):
        lines = [f"{name} {'undefined' if value is None else _short(value)}"]
        if ends is not None and value is not None:
            lines.append(f"interval {_short(ends[0])} to {_short(ends[1])}")
        texts.append(lines)
    kept = [None if v is None else e for v, e in zip(values, bounds, strict=True)]
    low = [e[0] if e else None for e in kept] if any(kept) else None
    high = [e[1] if e else None for e in kept] if any(kept) else None
    return Quantity(name, values, texts, low, high)


def _table(id: str, kind: type[Result], found: RunDifference, shown: Sequence[Difference]) -> Table:
    def cells(values: Sequence[float]) -> list[Cell]:
        return [Cell(_short(value), repr(value)) for value in values]

    sites = [d.site if d.site == d.other else f"{d.site} | {d.other}" for d in shown]
    spans = [
        Cell(f"{_short(d.interval[0])} to {_short(d.interval[1])}", repr(d.interval[0]))
        if d.interval
        else Cell("none")
        for d in shown
    ]
    gaps = [Cell(_short(d.difference), repr(d.difference), d.evident) for d in shown]
    evident = "marked where the interval leaves out 0"
    return Table(
        id,
        "All sites",
        [
            names("site", sites),
            column("quantity", [titled(d.field, kind.units, kind.names) for d in shown]),
            Column(found.names[0], cells([d.first for d in shown]), numeric=True),
            Column(found.names[1], cells([d.second for d in shown]), numeric=True),
            Column(
                "difference",
                gaps,
                numeric=True,
                help=f"{found.names[1]} less {found.names[0]}; {evident}",
            ),
            Column(
                "interval",
                spans,
                numeric=True,
                help="95%, of both numbers' intervals; paired where a correlation stands beside it",
            ),
            Column(
                "correlation",
                [_pairing(d) for d in shown],
                numeric=True,
                help="of both numbers' errors, estimated from rows that both runs read; the "
                f"interval counts on less of it, as much as is sure ({NOT_PAIRED}: as of "
                "independent runs; the reason stands above)",
            ),
        ],
    )


def _pairing(one: Difference) -> Cell:
    """The correlation of both numbers' errors, and what of it the interval counts on."""
    if one.interval is None:
        return Cell("none")
    if one.errors is None:
        return Cell(NOT_PAIRED)
    said = f"{one.errors.estimate:.3f} ({one.counted:.3f} counted)".replace("-", "\u2212")
    return Cell(said, repr(one.errors.estimate))


def _likeness(found: RunDifference) -> Section:
    cross = found.likeness
    if cross is None:
        return Section(
            "likeness", "Likeness of the codes (CKA)", [Prose([f"There is none: {found.why}."])]
        )
    parts: list[Part] = [
        Prose(
            [
                "Linear CKA says how alike two codes are up to rotation and scale: 1 for the same "
                "code, 0 for independent ones. It is estimated without bias, from pairs of "
                "different documents.",
                *cross.warnings,
            ]
        ),
        matrix(
            "likeness-matrix",
            "All sites of one with all of the other",
            f"Rows are sites of {found.names[0]}, columns those of {found.names[1]}, numbered by "
            "depth. Point at a cell to see its number.",
            cross.first,
            cross.second,
            cross.cka,
            cross.low,
            cross.high,
        ),
    ]
    partners = dict(found.pairs)
    held = [s for s in found.first.sites if s.name in partners]
    at = [(cross.first.index(s.name), cross.second.index(partners[s.name])) for s in held]
    values = [None if cross.cka[i] != cross.cka[i] else float(cross.cka[i]) for i in at]
    ends = [
        None if cross.low[i] != cross.low[i] else (float(cross.low[i]), float(cross.high[i]))
        for i in at
    ]
    if any(v is not None for v in values):
        parts.append(
            by_depth(
                "likeness-depth",
                "The same site in both",
                "CKA of each site with its partner. The bars are 95% intervals.",
                Axis("CKA"),
                held,
                [_quantity("CKA", values, ends)],
            )
        )
    return Section("likeness", "Likeness of the codes (CKA)", parts)


def _compared(found: RunDifference) -> Section:
    columns = []
    for name, analysis, only in zip(
        found.names, (found.first, found.second), found.only, strict=True
    ):
        alone = f"; {len(only)} of them have no partner: {sites_text(only)}" if only else ""
        said = [
            model_text(analysis.run),
            data_text(analysis.run),
            f"{span([analysis.n_samples(s.name) for s in analysis.sites])} per site",
            f"{len(analysis)}{alone}",
            ", ".join(analysis.metrics),
            str(analysis.run.get("polycode-plugins", "not recorded")),
        ]
        columns.append(Column(name, [Cell(text, text) for text in said], prose=True))
    terms = ["model", "data", "samples", "sites", "metrics", "version"]
    table = Table("compared-table", "Both runs", [column("", terms), *columns])
    return Section("compared", "What was compared", [table])


def _record(found: RunDifference) -> Section:
    lines = [
        f"# {name}: {_command(analysis)}"
        for name, analysis in zip(found.names, (found.first, found.second), strict=True)
    ]
    call = "\n".join([*lines, "import polycode_plugins as pc", "pc.diff(first, second)"])
    return Section("record", "Record", [Copyable("call", "How they were made", call)])


def _command(analysis: Analysis) -> str:
    commands = analysis.run.get("commands") or [analysis.run.get("command")]
    return "; ".join(str(c) for c in commands if c) or "made in Python"


def _kind(found: RunDifference, label: str) -> type[Result]:
    return type(found.first[found.pairs[0][0], label])


def _metric_name(found: RunDifference, label: str) -> str:
    return next(m.name for m in found.first.metric_objects if m.label == label)


def _short(value: float) -> str:
    return f"{value:,.4g}".replace("-", "\u2212")
