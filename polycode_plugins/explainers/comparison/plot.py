"""The picture that answers neuron or projection: scores by layer, with floors and the ceiling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from polycode_plugins.explainers.comparison.statistics.resampling import (
    clusters_of,
    interval,
    within,
)
from polycode_plugins.explainers.scoring.formulas import bounds_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from polycode_plugins.explainers.comparison.outcome import Comparison

COLOURS = {
    "neuron": "#0072b2",
    "projection": "#b65200",
    "component": "#007f5f",
    "independent": "#a9507f",
    "rotated": "#7a5cc0",
    "matched": "#3a7ca5",
    "covariance": "#8a6d3b",
    "feature": "#6a4fb3",
}
NAMES = {
    "neuron": "neurons",
    "projection": "random projections",
    "component": "principal components",
    "independent": "independent components",
    "direction": "directions",
    "rotated": "rotated neurons",
    "matched": "matched directions",
    "covariance": "directions of the covariance",
    "feature": "features",
}
_OTHER = "#7a6a00"
_BY_KIND = ("token-lookup", "oracle")  # what a score of that kind lies between
_INK = "#1d2430"


def interval_of_mean(
    scores: list[float], seed: int, score: str = "correlation"
) -> tuple[float, float] | None:
    """95% symmetric bootstrap-t of a mean over units, within what `score` can be.

    None for too few units to tell.
    """
    if len(scores) < 2:
        return None
    units, _ = clusters_of(
        [([str(i) for i in range(len(scores))], np.asarray(scores))], [([], np.empty(0))]
    )
    return within(bounds_of(score), interval(units, None, np.random.default_rng([seed, 4])))


def plot(comparison: Comparison, ax: Axes | None, score: str) -> Axes:
    """See `Comparison.plot`."""
    import matplotlib.pyplot as plt

    if ax is None:
        width = max(6.5, 3.5 + 0.75 * len(comparison.sites))
        _, ax = plt.subplots(figsize=(width, 4), layout="constrained")
    groups = [(k, w) for w in comparison.weights for k in comparison.kinds]
    rng = np.random.default_rng(0)
    for g, (kind, weights) in enumerate(groups):
        colour = COLOURS.get(kind, _OTHER)
        offset = 0.7 * ((g + 0.5) / len(groups) - 0.5)
        name = NAMES.get(kind, kind)
        label = name if weights == "trained" else f"{name}, random weights"
        for i, site in enumerate(comparison.sites):
            units = [u for u in comparison if (u.site, u.kind, u.weights) == (site, kind, weights)]
            scores = [s for u in units if (s := u.score(score)) is not None]
            if not scores:
                continue
            x = i + offset
            spread = 0.22 / len(groups)
            ax.plot(
                x + rng.uniform(-spread, spread, len(scores)), scores, ".", color=colour,
                alpha=0.25, ms=4, mew=0,
            )  # fmt: skip
            mean = float(np.mean(scores))
            bars = interval_of_mean(scores, int(comparison.run["seed"]), score)
            error = None if bars is None else [[mean - bars[0]], [bars[1] - mean]]
            ax.errorbar(
                [x], [mean], error, fmt="o" if weights == "trained" else "s", color=colour,
                mfc=colour if weights == "trained" else "white", ms=7, capsize=3, lw=1.5,
                label=label if i == 0 else None,
            )  # fmt: skip
    _floors(comparison, ax, score)
    ax.set_xticks(range(len(comparison.sites)), comparison.sites, rotation=30, ha="right")
    ax.set_ylabel(score.replace("_", " "))
    ax.axhline(0, color=_INK, lw=0.6)
    ax.grid(axis="y", color="#dfe3e8", lw=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def _floors(comparison: Comparison, ax: Axes, score: str) -> None:
    """Floors and ceiling as lines across: those that differ by kind in the colour of each kind.

    Of the units that have a score, as the means of the scores are.
    """
    names = dict.fromkeys(n for u in comparison for n in u.evaluation.floors)
    trained = [u for u in comparison if u.weights == "trained" and u.score(score) is not None]
    for name, style in zip(names, (":", "--", "-.", (0, (1, 3)), (0, (5, 1))), strict=False):
        kinds = comparison.kinds if name in _BY_KIND else [None]
        for kind in kinds:
            found = [
                u.evaluation.floors[name].values[score]
                for u in trained
                if kind in (None, u.kind) and name in u.evaluation.floors
            ]
            known = [v for v in found if v is not None]
            if known:
                colour = "#808080" if kind is None else COLOURS.get(kind, _OTHER)
                label = name if kind in (None, kinds[0]) else None
                ax.axhline(float(np.mean(known)), color=colour, lw=1, ls=style, label=label)
