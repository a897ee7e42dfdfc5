"""What a comparison of kinds of units says, in words."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from polycode_plugins.explainers.comparison.heat_texts import visible
from polycode_plugins.explainers.comparison.outcome import RANDOM, TRAINED
from polycode_plugins.explainers.comparison.plot import NAMES
from polycode_plugins.explainers.comparison.statistics import adjusting

if TYPE_CHECKING:
    from polycode_plugins.explainers.comparison.contrasts import Contrast
    from polycode_plugins.explainers.comparison.outcome import Comparison


def answers(comparison: Comparison) -> list[str]:
    """For the first kind of units beside each other one: what the comparison says, in words."""
    said = []
    for overall in (c for c in comparison.contrasts if not c.site):
        said.append(answer(overall))
        if overall.interval is None:
            said[-1] += _unscored(comparison, overall)
        if RANDOM in comparison.weights:
            first, second = overall.first, overall.second
            control = comparison.contrast(first, second, weights=RANDOM)[-1]
            if control.difference is not None and control.interval is not None:
                said[-1] += (
                    " In the control, the same network with its weights in random order, the "
                    f"difference is {_size(control.difference, *control.interval)}."
                )
    return said


def _unscored(comparison: Comparison, overall: Contrast) -> str:
    """How many units of the two kinds have no score, and the commonest reason; "" for none."""
    units = [
        u for u in comparison if u.kind in (overall.first, overall.second) and u.weights == TRAINED
    ]
    without = [u for u in units if u.score("correlation") is None]
    if not without:
        return ""
    reasons = Counter(u.no_score for u in without)
    (reason, count), *others = reasons.most_common()
    most = f" of {count}" if others else ""
    return (
        f" {len(without)} of {len(units)} have none; the {'commonest ' if others else ''}reason"
        f"{most}: {visible(reason)}."
    )


def answer(overall: Contrast) -> str:
    """What the contrast over all sites says, in words."""
    first, second = (NAMES.get(kind, kind) for kind in (overall.first, overall.second))
    if overall.difference is None or overall.interval is None or overall.p_value is None:
        return f"Too few of the {first} and {second} have a score to compare them."
    low, high = overall.interval
    p = f"p = {overall.p_value:.2g}"
    if low <= 0 <= high:
        said = (
            f"No difference that can be told from chance: over all sites the correlation of the "
            f"{first} less that of the {second} is {_size(overall.difference, low, high)}, {p}."
        )
    else:
        better, worse = (first, second) if low > 0 else (second, first)
        ends = (low, high) if low > 0 else (-high, -low)
        said = (
            f"Over all sites the {better} are explained better than the {worse}, by a correlation "
            f"of {_size(abs(overall.difference), *ends)}, {p}."
        )
    if overall.overlap is not None and overall.overlap < adjusting.COMMON:
        return f"{said} They share too little kurtosis and sparsity to be compared at equal ones."
    if overall.adjusted is None or overall.adjusted_interval is None:
        return said
    low, high = overall.adjusted_interval
    verdict = "which may be none" if low <= 0 <= high else "so their distribution is not all of it"
    return (
        f"{said} Between {first} and {second} whose activations are equally heavy-tailed and "
        f"sparse the difference is {_size(overall.adjusted, low, high)}, {verdict}."
    )


def _size(value: float, low: float, high: float) -> str:
    return f"{value:.3f} (95% interval {low:.3f} to {high:.3f})".replace("-", "\u2212")
