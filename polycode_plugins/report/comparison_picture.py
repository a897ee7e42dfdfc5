"""The picture that answers neuron or projection, and the differences as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from polycode_plugins.activations import Site
from polycode_plugins.explainers.comparison_plot import NAMES, interval_of_mean
from polycode_plugins.report.chart import Axis
from polycode_plugins.report.depth import Quantity, by_depth
from polycode_plugins.report.page import Part
from polycode_plugins.report.table import UNDEFINED, Table, column, names

if TYPE_CHECKING:
    from polycode_plugins.explainers.comparison import Comparison
    from polycode_plugins.explainers.contrasts import Contrast


def picture(comparison: Comparison) -> list[Part]:
    """Each kind's mean score by depth with floors and ceiling, and the table of differences."""
    sites = [
        Site(name, next(u.depth for u in comparison if u.site == name)) for name in comparison.sites
    ]
    quantities = []
    for weights in comparison.weights:
        for kind in comparison.kinds:
            name = NAMES.get(kind, kind)
            held = [
                [
                    s
                    for u in comparison
                    if (u.site, u.kind, u.weights) == (site.name, kind, weights)
                    and (s := u.score("correlation")) is not None
                ]
                for site in sites
            ]
            label = name if weights == "trained" else f"{name}, random weights"
            quantities.append(_quantity(label, held, int(comparison.run["seed"])))
    for floor in dict.fromkeys(f for u in comparison for f in u.evaluation.floors):
        held = [
            [
                s
                for u in comparison
                if u.site == site.name
                and (s := u.evaluation.floors[floor].values["correlation"]) is not None
            ]
            for site in sites
        ]
        if any(held):
            name = "ceiling" if floor == "oracle" else "floor"
            quantities.append(_quantity(f"{name}: {floor}", held, 0))
    chart = by_depth(
        "scores",
        "Explanation scores by depth",
        "Mean correlation of the simulated with the true activations. Bars are 95% intervals, "
        "bootstrapped over units; floors and the ceiling are means over all units of a site.",
        Axis("correlation score"),
        sites,
        quantities,
    )
    parts: list[Part] = [chart]
    contrasts = comparison.contrasts
    if contrasts:
        parts.append(_contrast_table(contrasts))
    return parts


def _quantity(name: str, held: Sequence[Sequence[float]], seed: int) -> Quantity:
    means = [float(np.mean(scores)) if scores else None for scores in held]
    bars = [interval_of_mean(list(scores), seed) for scores in held]
    texts = [
        [f"{name} {UNDEFINED if m is None else format(m, '.3f')}, {len(scores)} units"]
        for m, scores in zip(means, held, strict=True)
    ]
    low = [None if b is None else b[0] for b in bars]
    high = [None if b is None else b[1] for b in bars]
    return Quantity(name, means, texts, low, high)


def _contrast_table(contrasts: Sequence[Contrast]) -> Table:
    intervals = [c.interval or (None, None) for c in contrasts]
    adjusted = [c.adjusted_interval or (None, None) for c in contrasts]
    return Table(
        "contrasts",
        "Differences between kinds of units",
        [
            names("site", [c.site or "all sites" for c in contrasts]),
            column("first", [NAMES.get(c.first, c.first) for c in contrasts]),
            column("second", [NAMES.get(c.second, c.second) for c in contrasts]),
            column("difference", [c.difference for c in contrasts], digits=3),
            column("low", [i[0] for i in intervals], digits=3, help="95% bootstrap over units"),
            column("high", [i[1] for i in intervals], digits=3),
            column("p", [c.p_value for c in contrasts], digits=4, help="permutation of the kinds"),
            column(
                "effect",
                [c.effect for c in contrasts],
                digits=2,
                help="the difference in standard deviations within kinds (Cohen's d)",
            ),
            column(
                "adjusted",
                [c.adjusted for c in contrasts],
                digits=3,
                help="the difference at equal log kurtosis and sparsity",
            ),
            column("adjusted low", [i[0] for i in adjusted], digits=3),
            column("adjusted high", [i[1] for i in adjusted], digits=3),
        ],
    )
