"""A comparison on the terminal: mean scores, differences, and what they say."""

from __future__ import annotations

import math
import shutil
from typing import Any

import pandas as pd

from polycode_plugins.explainers.comparison.answer import answers
from polycode_plugins.explainers.comparison.decisions import untold
from polycode_plugins.explainers.comparison.outcome import Comparison


def show(comparison: Comparison) -> None:
    """Print all of it, the fairest score first."""
    _show_means(comparison)
    if len(comparison.kinds) > 1:
        _show_differences(comparison)
    if said := answers(comparison):
        print("\n" + "\n".join(said))


def _show_means(comparison: Comparison) -> None:
    frame = comparison.to_dataframe()
    groups = ["site", "kind"] if len(comparison.weights) == 1 else ["weights", "site", "kind"]
    floors = [c for c in frame.columns if c.startswith("floor.")]
    main = comparison.headline_scores
    scored = frame[[*main, *floors]].copy()
    # Floors are of the correlation (of judged units, of detection), and of the units that have one:
    # both means are of the same units.
    of = main[0] if main[0] in ("detection", "fuzzing") else "correlation"
    scored[floors] = scored[floors].where(frame[of].notna())
    means = frame[groups].join(scored).groupby(groups, sort=False)[[*main, *floors]].mean()
    blank = [c for c in floors if means[c].isna().all()]
    means = means.drop(columns=blank).rename(columns=lambda c: c.removeprefix("floor."))
    _print(means.reset_index())
    if blank:
        names = ", ".join(c.removeprefix("floor.") for c in blank)
        print(f"(undefined: {names}; a constant has no correlation)")


def _show_differences(comparison: Comparison) -> None:
    """The table of differences by the first of the scores that are told, where they are."""
    first, *others = comparison.kinds
    score = comparison.headline_scores[0]
    told = [k for k in others if not untold(comparison, first, k, score)]
    rows = [
        {
            "site": c.site or "all sites",
            "first": c.first,
            "second": c.second,
            "difference": c.difference,
            "low": c.interval and c.interval[0],
            "high": c.interval and c.interval[1],
            "p": None if c.p_value is None else f"{c.p_value:.4f}",
            "effect": c.effect,
            "adjusted": c.adjusted,
            "overlap": c.overlap,
        }
        for kind in told
        for c in comparison.contrast(first, kind, score)
    ]
    if not rows:
        return
    differences = pd.DataFrame(rows)
    title = f"Differences by {score.replace('_', ' ')}"
    if len(told) == 1:
        title += f": {first} less {told[0]}"
        differences = differences.drop(columns=["first", "second"])
    print(f"\n{title}", end="")
    _print(differences)


def _print(frame: Any) -> None:
    width = shutil.get_terminal_size((100, 24)).columns
    shown_as = {"float_format": lambda v: f"{v:.3f}", "line_width": width}
    # A column of nothing but None would be printed as such.
    print("\n" + frame.fillna(math.nan).to_string(index=False, na_rep="undefined", **shown_as))
