"""Basis or distribution: what the controls say of why neurons are explained better.

A neuron differs from a random projection in its basis and in its distribution: behind a
nonlinearity it is sparse and heavy-tailed. Rotated neurons are what the same layer would have in
another basis, so their difference to neurons is the basis's, by whatever way: where neurons' inputs
are heavy-tailed in no other basis, the distribution is part of it. Matched directions and those of
the covariance are no other layer's neurons; they say something where their distribution is that of
neurons, and then of the basis at equal distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from polycode_plugins.explainers.comparison.plot import NAMES, interval_of_mean
from polycode_plugins.explainers.comparison.statistics import adjusting, agreement
from polycode_plugins.explainers.scoring.formulas import chance_of

if TYPE_CHECKING:
    from polycode_plugins.explainers.comparison.contrasts import Contrast
    from polycode_plugins.explainers.comparison.outcome import Comparison

#: Kinds that are like neurons but for the basis, in the order in which they decide.
CONTROLS = ("rotated", "matched", "covariance")
#: A difference that lies within this of 0, interval and all, is as good as none.
NEGLIGIBLE = 0.05
#: A floor whose mean is so far from chance measures more than the explanation.
FAR = 0.1

Belongs = Literal[
    "basis", "distribution", "opposite", "undecided", "incomparable", "untold", "by site"
]


@dataclass(frozen=True)
class Decision:
    """What a control says at a site, or over all.

    Attributes:
        control: the kind of units that has the neurons' distribution and another basis.
        contrast: neurons less the control.
        belongs: "basis" where neurons are explained better than the control (95%);
            "distribution" where the difference is negligible, its interval within `NEGLIGIBLE`;
            "opposite" where the control is explained better; "undecided" where the interval is
            too wide to say; "incomparable" where the two share too little kurtosis and sparsity
            (never of rotated neurons, whose distribution is what the basis makes of it);
            "untold" where floors are far from chance; "by site" where the sites disagree.
    """

    control: str
    contrast: Contrast
    belongs: Belongs

    @property
    def site(self) -> str:
        """Where; "" for all sites."""
        return self.contrast.site


def decisions(comparison: Comparison, score: str) -> list[Decision]:
    """See `Comparison.decisions`."""
    if "neuron" not in comparison.kinds:
        return []
    made: list[Decision] = []
    for control in (c for c in CONTROLS if c in comparison.kinds):
        told = not untold(comparison, "neuron", control, score)
        made += [
            Decision(control, contrast, belongs(contrast, control) if told else "untold")
            for contrast in comparison.contrast("neuron", control, score)
        ]
    return made


def belongs(contrast: Contrast, control: str) -> Belongs:
    """What the difference of neurons to a control says, floors apart."""
    if control != "rotated" and _apart(contrast):
        return "incomparable"
    if disagreeing(contrast):
        return "by site"
    if contrast.interval is None:
        return "undecided"
    low, high = contrast.interval
    if low >= -NEGLIGIBLE and high <= NEGLIGIBLE:
        return "distribution"
    if low > 0:
        return "basis"
    return "opposite" if high < 0 else "undecided"


def _apart(contrast: Contrast) -> bool:
    return contrast.overlap is not None and contrast.overlap < adjusting.COMMON


def disagreeing(contrast: Contrast) -> bool:
    """Whether the sites differ in the difference, so that their mean is nobody's."""
    return contrast.disagreement is not None and contrast.disagreement < agreement.LEVEL


def untold(comparison: Comparison, first: str, second: str, score: str) -> str:
    """Why a difference is not told: explanations of other units say as much; "" where it is.

    They are far from chance by `FAR` or more in one of the kinds, and not by chance; or differ
    between the kinds by `NEGLIGIBLE` or more, by half as much as the explanations do, and not by
    chance.
    """
    if "shuffled" not in comparison.floors:
        return ""
    for kind in (first, second):
        values = [
            v
            for u in comparison
            if u.kind == kind and u.weights == "trained"
            if (v := u.floor("shuffled", score)) is not None
        ]
        mean, interval = _mean(values, int(comparison.run["seed"]))
        chance = chance_of(score)
        if mean is None or chance is None or abs(mean - chance) < FAR:
            continue
        if interval is None or not interval[0] <= chance <= interval[1]:
            return (
                f"explanations of other units score {_number(mean)} with the "
                f"{NAMES.get(kind, kind)}, far from the {_number(chance)} of chance"
            )
    floor = comparison.contrast(first, second, score, floor="shuffled")[-1]
    real = comparison.contrast(first, second, score)[-1]
    if floor.difference is None or floor.interval is None or real.difference is None:
        return ""
    if not floor.interval[0] <= 0 <= floor.interval[1] and (
        abs(floor.difference) >= max(NEGLIGIBLE, abs(real.difference) / 2)
    ):
        return (
            f"explanations of other units differ by {_number(floor.difference)} between the kinds, "
            f"and their own by {_number(real.difference)}"
        )
    return ""


def _mean(values: Sequence[float], seed: int) -> tuple[float | None, tuple[float, float] | None]:
    if not values:
        return None, None
    return float(np.mean(values)), interval_of_mean(list(values), seed)


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "\u2212")


def sentence(comparison: Comparison, control: str, score: str) -> str:
    """What a control says, in words: over all sites, or site by site where these disagree."""
    *sites, overall = (d for d in comparison.decisions(score) if d.control == control)
    name = NAMES.get(control, control)
    if overall.belongs == "untold":
        return f"The {name} decide nothing: {untold(comparison, 'neuron', control, score)}."
    if overall.belongs == "by site":
        return f"By the {name}, the sites differ: " + "; ".join(_by_site(sites)) + "."
    said = _SAID[overall.belongs].format(
        name=name, size=_size(overall.contrast), limit=NEGLIGIBLE, pairs=_pairs(overall.contrast)
    )
    if control == "rotated" and overall.belongs == "basis" and _apart(overall.contrast):
        said += (
            " They are also less heavy-tailed or sparse, so the basis may do so by way of the "
            "distribution."
        )
    return said


_SAID: dict[str, str] = {
    "basis": "By the {name} explainability belongs to the basis: in another one, units are "
    "explained worse than neurons; the difference is {size}{pairs}.",
    "distribution": "By the {name} explainability belongs to the distribution: in another basis, "
    "units are explained as well as neurons; the difference is {size}{pairs}, within {limit}.",
    "opposite": "By the {name} the basis of neurons is no help: in another one, units are "
    "explained better; the difference is {size}{pairs}.",
    "undecided": "The {name} leave it open whether basis or distribution: neurons less these is "
    "{size}{pairs}; more units would tell.",
    "incomparable": "The {name} cannot tell basis from distribution here: they share too little "
    "kurtosis and sparsity with neurons.",
}
_SHORT: dict[str, str] = {
    "basis": "the basis at {}",
    "distribution": "the distribution at {}",
    "opposite": "explained better than neurons at {}",
    "undecided": "open at {}",
    "incomparable": "too different from neurons at {}",
}


def _by_site(sites: Sequence[Decision]) -> list[str]:
    said = []
    for belongs, words in _SHORT.items():
        of = [d for d in sites if d.belongs == belongs]
        if of:
            said.append(words.format(", ".join(f"{d.site} ({_short(d.contrast)})" for d in of)))
    return said


def _pairs(contrast: Contrast) -> str:
    return "" if contrast.pairs is None else f", of {contrast.pairs} pairs"


def _short(contrast: Contrast) -> str:
    return "too few units" if contrast.difference is None else _number(contrast.difference)


def _size(contrast: Contrast) -> str:
    if contrast.difference is None:
        return "not known, of too few units"
    if contrast.interval is None:
        return f"{_number(contrast.difference)}, of too few units for an interval"
    low, high = contrast.interval
    return f"{_number(contrast.difference)} (95% interval {_number(low)} to {_number(high)})"
