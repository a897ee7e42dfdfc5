"""Which of the panel's values to believe, how far to trust it, and what to be told about it.

The rule, settled on other tasks than those that benchmarks/mutual_information.py reports:

1. Both sides of few values: the counts.
2. The Gaussian value where a Gaussian suffices: training the critic added nothing to the Gaussian
   critic it began with, that critic's own held-out bound is as high as the Gaussian value, and the
   neighbours see no more. It is then unbiased and the least variable of all. Without a trained
   critic the bound is asked for where values repeat, as no Gaussian's do: zeros on both sides after
   a ReLU put the Gaussian value 15% too high.
3. Otherwise the largest of the lower bounds and the neighbour estimate that is evident, since those
   err downwards; SMILE is no bound and counts only when alone. Being the largest is no merit of its
   own where nothing is shared: evident is what exceeds 0 by `EVIDENT` standard errors, and the
   neighbours, where none but they see anything, what exceeds shuffled pairs by as much.
4. Where nothing is evident, the Gaussian value, if it says nothing either; the largest otherwise.

Information never exceeds the entropy of a side of few values, so the value is cut there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from polycode_plugins.information.bounds import LOWER_BOUNDS
from polycode_plugins.information.samples import Estimate

#: What texts call the estimators.
NAMES = {
    "gaussian": "Gaussian",
    "ksg": "KSG",
    "mine": "MINE",
    "nwj": "NWJ",
    "infonce": "InfoNCE",
    "smile": "SMILE",
    "mine-as-published": "MINE as published",
}
#: Gain over the Gaussian critic that is not worth a word [nats].
NEGLIGIBLE = 0.005
#: Standard errors above 0 from which on an estimate counts as seeing something.
EVIDENT = 3.0
#: Chance level worth a word: so much [nats], and such a share of the value.
_CHANCE, _CHANCE_SHARE = 0.02, 0.1
#: Estimators disagree by so much [nats] or such a share of the value, ..
_GAP, _GAP_SHARE = 0.02, 0.25
#: .. and by more standard errors than `EVIDENT`, or by more than this [nats] whatever these are.
_WIDE_GAP = 0.1


@dataclass(frozen=True)
class Setting:
    """What the rule must know of the samples: their number, the two widths, counts or not."""

    n_samples: int
    x_width: int
    y_width: int
    counted: bool  # the neighbours' place is taken by counts
    limit: float = math.inf  # entropy of a side of few values, which bounds the information [nats]
    held_out: Estimate | None = None  # of the Gaussian critic, where values repeat


@dataclass(frozen=True)
class Choice:
    """The estimator to believe, out of how many it is the largest; 1 where another reason chose."""

    name: str
    out_of: int = 1


def recommend(estimates: dict[str, Estimate], setting: Setting) -> Choice:
    """The estimate to believe."""
    if setting.counted and "ksg" in estimates:
        return Choice("ksg")
    gaussian = estimates.get("gaussian")
    if gaussian is not None and _gaussian_suffices(estimates, setting):
        return Choice("gaussian")
    erring_low = [name for name in (*LOWER_BOUNDS, "ksg") if name in estimates]
    seeing = [name for name in erring_low if evident(estimates[name])]
    if not seeing and gaussian is not None and not evident(gaussian):
        return Choice("gaussian")
    among = seeing or erring_low or list(estimates)
    return Choice(max(among, key=lambda name: estimates[name].nats), len(erring_low or estimates))


def evident(found: Estimate) -> bool:
    """Whether the estimate is above 0 by more than chance."""
    return found.nats > EVIDENT * found.error


def unproven(estimates: dict[str, Estimate], setting: Setting) -> bool:
    """Whether the neighbours alone see something, and were not held against shuffled pairs."""
    found = estimates.get("ksg")
    if found is None or found.chance is not None or not evident(found):
        return False
    others = (v for k, v in estimates.items() if k in (*LOWER_BOUNDS, "gaussian"))
    return recommend(estimates, setting).name == "ksg" and not any(map(evident, others))


def interval(found: Estimate, choice: Choice, limit: float) -> tuple[float, float]:
    """95% [nats] for sampling and for what a correction leaves open, within [0, `limit`].

    The largest of several estimates is too large by chance: each of them then gets an interval so
    wide that all hold at once (Bonferroni).
    """
    reach = NormalDist().inv_cdf(1 - 0.025 / choice.out_of) * found.error
    below, above = found.slack
    low, high = found.nats - below - reach, max(found.nats, 0.0) + above + reach
    return min(max(low, 0.0), limit), min(max(high, 0.0), limit)


def _gaussian_suffices(estimates: dict[str, Estimate], setting: Setting) -> bool:
    gaussian = estimates["gaussian"]
    neighbours = estimates.get("ksg")
    # Neighbours run 1% high on strongly related pairs of single coordinates.
    if neighbours and neighbours.nats > 1.01 * gaussian.nats + 3 * neighbours.error:
        return False
    trained = [estimates[name] for name in LOWER_BOUNDS if name in estimates]
    # A Gaussian critic fitted to n = 3/4 N samples loses about pq / 2n of its bound on others;
    # twice that is allowed for.
    loss = setting.x_width * setting.y_width / (0.75 * setting.n_samples)
    if not trained:
        bound = setting.held_out
        if bound is None:
            return True
        return gaussian.nats <= bound.nats + loss + EVIDENT * math.hypot(
            gaussian.error, bound.error
        )
    best = max(trained, key=lambda found: found.nats)
    supported = gaussian.nats <= best.baseline + loss + 2 * gaussian.error
    return supported and best.gain <= max(NEGLIGIBLE, 2.5 * best.gain_error)


def remarks(estimates: dict[str, Estimate], chosen: str, setting: Setting) -> list[str]:
    """Sentences on what the estimates themselves say about their worth."""
    found, n = estimates[chosen], setting.n_samples
    said = []
    if found.nats > math.log(n) / 2 and chosen != "gaussian" and not setting.counted:
        said.append(
            f"{found.nats:.2f} nats is much for {n} samples: no lower bound that holds for every "
            f"distribution can show more than about ln N = {math.log(n):.2f} (McAllester & Stratos "
            "2020), so the true value may be far higher; pass more samples."
        )
    if found.chance is not None and found.chance > max(_CHANCE, _CHANCE_SHARE * found.nats):
        said.append(
            f"Of shuffled pairs, where nothing is shared, {NAMES[chosen]} would say "
            f"{found.chance:.3f} nats, since the values repeat too rarely for {n} samples; that is "
            "corrected for, but the correction is an approximation, so pass more samples."
        )
    if (gap := _gap(estimates, found)) is not None:
        low, high = gap
        said.append(
            f"The estimators disagree: {NAMES[low]} says {max(estimates[low].nats, 0):.3f} nats "
            f"and {NAMES[high]} {estimates[high].nats:.3f}; {NAMES[chosen]} is recommended, but "
            "look at all of them."
        )
    width = setting.x_width + setting.y_width
    if n < max(1000, 20 * width):
        said.append(
            f"{n} samples are few for {width} coordinates; the estimate may be far too low, so "
            "repeat it with more."
        )
    return said


def _gap(estimates: dict[str, Estimate], found: Estimate) -> tuple[str, str] | None:
    """The lowest and the highest estimator, if they say different things."""
    judged = {k: v for k, v in estimates.items() if k in (*LOWER_BOUNDS, "ksg", "gaussian")}
    if len(judged) < 2:
        return None
    low, high = (pick(judged, key=lambda k: judged[k].nats) for pick in (min, max))
    gap = max(judged[high].nats, 0.0) - max(judged[low].nats, 0.0)
    share = _GAP_SHARE * max(found.nats, 0.0)
    chance = EVIDENT * math.hypot(judged[low].error, judged[high].error)
    return (low, high) if gap > share and gap > min(max(_GAP, chance), _WIDE_GAP) else None
