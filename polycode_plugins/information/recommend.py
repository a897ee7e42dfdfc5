"""Which of the panel's values to believe, and what to be told about it.

The rule, settled on other tasks than those that benchmarks/mutual_information.py reports:

1. Two labellings: the counts.
2. The Gaussian value where a Gaussian suffices: training the critic added nothing to the Gaussian
   critic it began with, that critic's own held-out bound is as high as the Gaussian value, and the
   neighbours see no more. It is then unbiased and the least variable of all.
3. Otherwise the largest of the lower bounds and the neighbour estimate, since those err downwards;
   SMILE is no bound and counts only when alone.

Information never exceeds the entropy of a labelling, so the value is cut there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from polycode_plugins.information.bounds import LOWER_BOUNDS
from polycode_plugins.information.samples import Estimate

#: Gain over the Gaussian critic that is not worth a word [nats].
NEGLIGIBLE = 0.005


@dataclass(frozen=True)
class Setting:
    """What the rule must know of the samples: their number, the two widths, labels or not."""

    n_samples: int
    x_width: int
    y_width: int
    labels: int  # how many of the two sides are labels
    limit: float = math.inf  # entropy of the labels, which bounds the information [nats]


def recommend(estimates: dict[str, Estimate], setting: Setting) -> str:
    """The name of the estimate to believe."""
    if setting.labels == 2 and "ksg" in estimates:
        return "ksg"
    if "gaussian" in estimates and _gaussian_suffices(estimates, setting):
        return "gaussian"
    erring_low = [name for name in (*LOWER_BOUNDS, "ksg") if name in estimates]
    return max(erring_low or estimates, key=lambda name: estimates[name].nats)


def _gaussian_suffices(estimates: dict[str, Estimate], setting: Setting) -> bool:
    gaussian = estimates["gaussian"]
    neighbours = estimates.get("ksg")
    # Neighbours run 1% high on strongly related pairs of single coordinates.
    if neighbours and neighbours.nats > 1.01 * gaussian.nats + 3 * neighbours.error:
        return False
    trained = [estimates[name] for name in LOWER_BOUNDS if name in estimates]
    if not trained:
        return True
    best = max(trained, key=lambda found: found.nats)
    # A Gaussian critic fitted to 3/4 of N samples loses about pq / 2n of its bound on others.
    loss = setting.x_width * setting.y_width / (0.75 * setting.n_samples)
    supported = gaussian.nats <= best.baseline + loss + 2 * gaussian.error
    return supported and best.gain <= max(NEGLIGIBLE, 2.5 * best.gain_error)


def remarks(estimates: dict[str, Estimate], chosen: str, setting: Setting) -> list[str]:
    """Sentences on what the estimates themselves say about their worth."""
    found, n = estimates[chosen], setting.n_samples
    said = []
    if found.nats > math.log(n) / 2 and chosen != "gaussian":
        said.append(
            f"{found.nats:.2f} nats is much for {n} samples: no lower bound that holds for every "
            f"distribution can show more than about ln N = {math.log(n):.2f} (McAllester & Stratos "
            "2020), so the true value may be far higher; pass more samples."
        )
    judged = {k: v.nats for k, v in estimates.items() if k in (*LOWER_BOUNDS, "ksg", "gaussian")}
    if len(judged) > 1:
        low, high = min(judged, key=judged.__getitem__), max(judged, key=judged.__getitem__)
        if judged[high] - judged[low] > max(0.1, 0.25 * found.nats):
            said.append(
                f"The estimators disagree: {low} says {max(judged[low], 0):.3f} nats and {high} "
                f"{judged[high]:.3f}; {chosen} is recommended, but look at all of them."
            )
    width = setting.x_width + setting.y_width
    if n < max(1000, 20 * width):
        said.append(
            f"{n} samples are few for {width} coordinates; the estimate may be far too low, so "
            "repeat it with more."
        )
    return said
