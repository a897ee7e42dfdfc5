"""The section of mutual information: the values with the spread of their estimators, and all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from polycode_plugins.information import NAMES
from polycode_plugins.metrics.chapter import View, generic_parts
from polycode_plugins.pages.charts import Axis, Chart
from polycode_plugins.pages.depth_charts import Quantity, by_depth
from polycode_plugins.pages.pages import Part
from polycode_plugins.pages.tables import Column, Table, column, names

if TYPE_CHECKING:
    from polycode_plugins.metrics.mine.result import MINEResult


def mine_parts(view: View) -> list[Part]:
    """What every metric has, with a chart of its own and a table of the estimators."""
    parts: list[Part] = []
    for part in generic_parts(view):
        if isinstance(part, Chart):
            parts.append(spread_chart(view))
        elif isinstance(part, Table):
            parts += [replace(part, columns=_worded(part.columns)), estimates_table(view)]
        else:
            parts.append(part)
    return parts


def spread_chart(view: View) -> Chart:
    """The recommended value by depth, between the smallest and the largest that was estimated."""
    results: Sequence[MINEResult] = view.results
    values, ends, texts = [], [], []
    for result in results:
        low, high = result.interval
        # Where the estimators agree better than the sample allows, the sample sets the bar.
        reach = [low, high, *result.estimates.values()]
        ends.append((min(reach), max(reach)))
        values.append(result.nats)
        lines = [f"{NAMES[result.recommended]}, recommended: {result.nats:.3f} nats"]
        lines.append(f"95% interval for its sampling error {low:.3f} to {high:.3f}")
        others = [(k, v) for k, v in result.estimates.items() if k != result.recommended]
        texts.append([*lines, *(f"{NAMES[k]} {v:.3f}" for k, v in others)])
    return by_depth(
        f"{view.id}-depth",
        "Mutual information by depth",
        "Each point is the recommended value at a site. The bars run from the smallest to the "
        "largest of all estimators there (and at least over the 95% interval for sampling error), "
        "since what the estimators do not agree on is not known.",
        Axis("mutual information (nats)"),
        view.sites,
        [
            Quantity(
                "mutual information", values, texts, [low for low, _ in ends], [h for _, h in ends]
            )
        ],
    )


def estimates_table(view: View) -> Table:
    """What each estimator says at each site."""
    results: Sequence[MINEResult] = view.results
    used = dict.fromkeys(name for result in results for name in result.estimates)
    columns = [names("site", [site.name for site in view.sites])]
    for name in used:
        columns += [
            column(
                f"{NAMES[name]} (nats)",
                [result.estimates.get(name) for result in results],
                help=f"what {NAMES[name]} says; values below 0 are set to 0",
            ),
            column(
                "standard error",
                [result.errors.get(name) for result in results],
                help=f"of {NAMES[name]}, for its sampling error alone [nats]",
            ),
        ]
    return Table(f"{view.id}-estimates", "What each estimator says", columns)


def _worded(columns: Sequence[Column]) -> list[Column]:
    """The columns, with estimators called what the literature calls them."""
    return [
        replace(c, cells=[replace(v, text=NAMES.get(v.text, v.text)) for v in c.cells])
        if c.title == "recommended"
        else c
        for c in columns
    ]
