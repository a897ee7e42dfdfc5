"""An analysis in a few lines: as a terminal and a notebook show it, and its headline as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polycode_plugins.metrics.chapter import View, findings_of, heat_rows, is_number
from polycode_plugins.pages.cards import Card, heat_image
from polycode_plugins.runs.description import count, model_name

if TYPE_CHECKING:
    import pandas as pd

    from polycode_plugins.runs.analysis import Analysis

_ROWS = 6  # of the small picture
_NAME = 42  # characters of a site's name in the table


def views_of(analysis: Analysis) -> list[View]:
    """Each metric of the analysis with its results."""
    return [
        View(
            f"metric-{number}",
            metric.label,
            metric,
            analysis.sites,
            [analysis.results[site.name][metric.label] for site in analysis.sites],
        )
        for number, metric in enumerate(analysis.metric_objects)
    ]


def card(analysis: Analysis, *, drawn: bool) -> Card:
    """What was found, what is doubtful and, if `drawn`, the map over layers."""
    views = views_of(analysis)
    tallies = (analysis.run.get("left_out") or {}).values()
    most = max((sum(tally.values()) for tally in tallies), default=0)
    left_out = f"; {most} positions left out" if most else ""
    narrow = len(analysis.run.get("narrow") or {})
    left_out += f"; {count(narrow, 'site')} left out, too narrow" if narrow else ""
    name = model_name(analysis.run)
    title = (
        f"Analysis({f'{name}, ' if name else ''}{count(len(analysis), 'site')}, "
        f"metrics: {', '.join(analysis.metrics)}"
        f"{left_out})"
    )
    warnings = sorted(analysis.warnings, key=lambda w: (not w.grave, -len(w.sites)))
    rows = [row for view in views for row in heat_rows(view)][:_ROWS] if drawn else []
    return Card(
        title,
        [sentence for view in views for sentence in findings_of(view)],
        [f"{w.metric}: {w}" for w in warnings],
        "analysis.warnings",
        heat_image(rows) if rows else "",
    )


def headline(analysis: Analysis, metric: str, width: int) -> pd.DataFrame:
    """See `Analysis.headline`."""
    import pandas as pd

    found = {site.name: analysis[site.name, metric] for site in analysis.sites}
    rows = [result.scalars() for result in found.values()]
    fields = next(iter(found.values())).headline or [f for f in rows[0] if is_number(rows[0][f])]
    # The ends of an interval are one column, beside the number that it is of.
    columns: dict[str, list[Any]] = {}
    for field in fields:
        stem, _, end = field.rpartition("_")
        if end == "low" and f"{stem}_high" in fields:
            ends = [(row.get(field), row.get(f"{stem}_high")) for row in rows]
            columns[_word(stem)] = [
                None if low is None or high is None else f"{low:.3g} to {high:.3g}"
                for low, high in ends
            ]
        elif not (end == "high" and f"{stem}_low" in fields) and field in rows[0]:
            columns[field] = [_rounded(row.get(field)) for row in rows]
    frame = pd.DataFrame(columns, index=pd.Index([_short(n) for n in found], name="site"))
    # What says least stands last and goes first where there is no room.
    while len(frame.columns) > 1 and _breadth(frame) > width:
        frame = frame.iloc[:, :-1]
    return frame


def _word(stem: str) -> str:
    return "interval" if stem.endswith("interval") else f"{stem}_interval"


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _short(name: str) -> str:
    """A long name without its middle: its end says most."""
    return name if len(name) <= _NAME else f"{name[:8]}...{name[8 + 3 - _NAME :]}"


def _breadth(frame: pd.DataFrame) -> int:
    return max(map(len, frame.to_string(na_rep="-").splitlines()))
