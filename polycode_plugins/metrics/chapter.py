"""The section of any metric, from what every `Result` has: a reading, scalars, maybe a plot."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from polycode_plugins.activations import Site
from polycode_plugins.metrics.base import Grave, Metric, Result
from polycode_plugins.metrics.site_warnings import site_warnings
from polycode_plugins.pages.charts import Axis
from polycode_plugins.pages.depth_charts import Quantity, by_depth, families
from polycode_plugins.pages.heat_maps import HeatRow
from polycode_plugins.pages.pages import Part, Pictures, Prose, Warnings
from polycode_plugins.pages.pictures import picture_of
from polycode_plugins.pages.tables import (
    UNDEFINED,
    Scalar,
    Table,
    column,
    defined,
    names,
    scalar_columns,
    titled,
)

# "first, second: what they are", and what is indented deeper, under "Attributes:" in a docstring.
_ATTRIBUTES = re.compile(r"^Attributes:\n((?:(?: +.*)?(?:\n|$))*)", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^ {4}(\w+(?:, \w+)*): (.+(?:\n {5,}.+)*)", re.MULTILINE)
# At most so many sites are drawn one by one.
_PICTURES = 24


@dataclass(frozen=True)
class View:
    """One metric of an analysis, as its section sees it.

    Attributes:
        id: unique on the page; the ids of what the section holds begin with it.
        label: the metric's label in the analysis.
        metric: the metric.
        sites: the sites in depth order.
        results: one result for each site.
    """

    id: str
    label: str
    metric: Metric
    sites: Sequence[Site]
    results: Sequence[Any]

    @property
    def title(self) -> str:
        """The section's heading."""
        title: str = self.results[0].title
        if title and self.label == self.metric.name:
            return title
        return self.label[:1].upper() + self.label[1:]


def chapter_of(view: View) -> list[Part]:
    """The chapter that the results bring, see `Result.chapter`.

    It may be a third party's: whatever it raises becomes a sentence in the report, above what every
    metric has.
    """
    kind = type(view.results[0])
    try:
        parts = list(kind.chapter(view))
        for part in parts:
            if not isinstance(getattr(part, "template", None), str):
                raise TypeError(f"{part!r} is no part of a page")
        return parts
    except Exception as error:  # a plugin may raise anything
        said = f"The chapter of {kind.__name__} failed with {type(error).__name__}: {error}"
        return [Warnings([said]), *generic_parts(view)]


def generic_parts(view: View) -> list[Part]:
    """How to read it, the first of its headline by depth, a table of all scalars, the plots.

    A result class may say more than its base asks for: `interval` (low, high) around its first
    scalar, and `intervals()` {field: (low, high)} around others. Its `warnings` stand at the
    beginning of the page.
    """
    units: Mapping[str, str] = view.results[0].units
    called: Mapping[str, str] = view.results[0].names
    rows = [_plain(result.scalars()) for result in view.results]
    # Every picture costs a tenth of a second and 20 kB: of many sites, a sample over all depths.
    step = -(-len(view.sites) // _PICTURES)
    drawn = [(site.name, result) for site, result in zip(view.sites, view.results, strict=True)][
        ::step
    ]
    images, failures = _images(drawn)
    parts: list[Part] = []
    if view.results[0].reading:
        parts.append(Prose([view.results[0].reading]))
    if failures:
        parts.append(Warnings(failures))
    main = main_scalar(rows, view.results[0].headline)
    if main is not None:
        # `interval` is of the first scalar, which a headline may not begin with.
        of = None if main == main_scalar(rows) else main
        intervals = [interval_of(result, of) for result in view.results]
        bars = "; the bars are its intervals" if any(intervals) else ""
        name = called.get(main, main.replace("_", " "))
        parts.append(
            by_depth(
                f"{view.id}-depth",
                f"{name[:1].upper()}{name[1:]} by depth",
                f"Each point is a site{bars}.",
                Axis(titled(main, units, called)),
                view.sites,
                [quantity(name, [row.get(main) for row in rows], intervals)],
            )
        )
    if any(rows):
        # What says most stands first, and the rest behind a button.
        headline = [field for field in view.results[0].headline if field in rows[0]]
        ordered = [{f: row.get(f) for f in (*headline, *row)} for row in rows]
        columns = [
            names("site", [s.name for s in view.sites]),
            column("depth", range(len(view.sites))),
            *scalar_columns(ordered, units, called, meanings(type(view.results[0]))),
        ]
        leading = len(headline) + 2 if headline else 0
        parts.append(Table(f"{view.id}-table", "All sites", columns, leading))
    if images:
        which = "each site" if step == 1 else f"one site in {step}"
        parts.append(Pictures(f"Plots of {which}", images, view.results[0].picture))
    return parts


def generic_findings(view: View) -> list[str]:
    """From where to where the first number of the headline runs, with the intervals there."""
    kind = type(view.results[0])
    rows = [_plain(result.scalars()) for result in view.results]
    main = main_scalar(rows, kind.mapped or kind.headline)
    if main is None:
        return []
    name = kind.names.get(main, main.replace("_", " "))
    known = [(float(v), i) for i, row in enumerate(rows) if is_number(v := row.get(main))]  # type: ignore[arg-type]
    first = main == main_scalar(rows)

    def at(value: float, i: int) -> str:
        interval = interval_of(view.results[i], None if first else main)
        said = f"{value:.3g} at {view.sites[i].name}"
        return said + (f" ({interval[0]:.3g} to {interval[1]:.3g})" if interval else "")

    low, high = min(known), max(known)
    if len(known) == 1:
        return [f"The {name} is {at(*low)}."]
    middle = median(value for value, _ in known)
    several = (
        f"over {len(known)} of {len(rows)} sites" if len(known) < len(rows) else "over all sites"
    )
    return [
        f"The {name} runs from {at(*low)} to {at(*high)}; its median {several} is {middle:.3g}."
    ]


def findings_of(view: View) -> list[str]:
    """The findings that the results bring, see `Result.findings`; a third party's may fail."""
    kind = type(view.results[0])
    try:
        return [str(sentence) for sentence in kind.findings(view)]
    except Exception as error:  # a plugin may raise anything
        return [f"The findings of {kind.__name__} failed with {type(error).__name__}: {error}"]


def heat_rows(view: View) -> list[HeatRow]:
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
        # A row of what is not to be read anywhere says nothing.
        if all(v is None for v in numbers) or (field == fields[0] and all(grave)):
            continue
        name = titled(field, kind.units, kind.names)
        for family, members in groups:
            rows.append(
                HeatRow(
                    f"{name}, {family}" if len(groups) > 1 else name,
                    [view.sites[i].name for i in members],
                    [numbers[i] for i in members],
                    [care[i] or (grave[i] and field == fields[0]) for i in members],
                    view.id,
                )
            )
    return rows


def _images(results: Sequence[tuple[str, Result]]) -> tuple[list[tuple[str, str]], list[str]]:
    """(name, picture) of every result that can plot itself, and what went wrong with others.

    `plot` may be a third party's: whatever it raises becomes a sentence in the report, and the
    report is written.
    """
    images, failures = [], []
    for name, result in results:
        if type(result).plot is Result.plot:
            continue
        try:
            images.append((name, picture_of(result.plot)))
        except NotImplementedError:
            continue
        except Exception as error:  # a plugin may raise anything
            failures.append(f"The plot of {name} failed with {type(error).__name__}: {error}")
    return images, failures


def meanings(result: type[Result]) -> dict[str, str]:
    """What the fields and properties of a result are, as its documentation says.

    The ends of `interval` are `interval_low` and `interval_high`. What is not documented is left
    out.
    """
    found = {
        name: inspect.getdoc(value) or ""
        for name, value in inspect.getmembers(result)
        if isinstance(value, property)
    }
    for section in _ATTRIBUTES.findall(inspect.getdoc(result) or ""):
        for fields, text in _ATTRIBUTE.findall(section):
            several = f"{fields}: " if ", " in fields else ""
            found |= dict.fromkeys(fields.split(", "), several + text)
    if "interval" in found:
        ends = {"interval_low": "lower end of ", "interval_high": "upper end of "}
        found |= {end: which + found["interval"] for end, which in ends.items()}
    # A table says "undefined" for None.
    plain = {name: re.sub(r"\bNone\b", UNDEFINED, text) for name, text in found.items() if text}
    return {name: " ".join(text.replace("`", "").split()) for name, text in plain.items()}


def main_scalar(rows: Sequence[dict[str, Scalar]], headline: Sequence[str] = ()) -> str | None:
    """The field to plot by depth: the first that is a number at some site, None without one."""
    for field in dict.fromkeys([*headline, *(field for row in rows for field in row)]):
        values = [row.get(field) for row in rows]
        known = [v for v in values if defined(v)]
        if known and all(is_number(v) for v in known):
            return field
    return None


def is_number(value: Scalar) -> bool:
    """Whether a scalar is a number that is defined."""
    return isinstance(value, float | int) and not isinstance(value, bool) and defined(value)


def quantity(
    name: str, values: Sequence[Scalar], intervals: Sequence[tuple[float, float] | None]
) -> Quantity:
    """A quantity whose hover labels show three significant digits and the interval."""
    numbers = [float(v) if is_number(v) else None for v in values]  # type: ignore[arg-type]
    texts = []
    for number, interval in zip(numbers, intervals, strict=True):
        lines = [f"{name} {UNDEFINED if number is None else format(number, ',.4g')}"]
        if interval is not None:
            lines.append(f"interval {interval[0]:,.4g} to {interval[1]:,.4g}")
        texts.append(lines)
    low = [i[0] if i else None for i in intervals] if any(intervals) else None
    high = [i[1] if i else None for i in intervals] if any(intervals) else None
    return Quantity(name, numbers, texts, low, high)


def _plain(row: Mapping[str, Any]) -> dict[str, Scalar]:
    """Scalars of numpy and torch as Python's own, which the table can tell apart."""
    return {k: v.item() if hasattr(v, "item") else v for k, v in row.items()}


def interval_of(result: Result, field: str | None = None) -> tuple[float, float] | None:
    """`result.interval` where there is one: two numbers around the result's main scalar.

    Of another `field` what `result.intervals()` has.
    """
    interval = getattr(result, "interval", None) if field is None else result.intervals().get(field)
    if not isinstance(interval, tuple | list) or len(interval) != 2:
        return None
    low, high = interval
    return (float(low), float(high)) if is_number(low) and is_number(high) else None


def own_warnings(view: View) -> list[str]:
    """What the results warn of, each sentence with the sites that say it."""
    sites = [site.name for site in view.sites]
    held = dict(zip(sites, view.results, strict=True))
    return [str(warning) for warning in site_warnings(view.label, held)]
