"""The explainer's noise beside the spread of units: what one more explanation would change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Noise:
    """Analysis of variance of scores, one way, by unit.

    Attributes:
        within: standard deviation of the scores of one unit's explanations.
        between: standard deviation of the units' true scores: of their means, less what of it is
            noise; 0 where the noise is all of it.
        units: units with several explanations.
        explanations: of each, on average.
    """

    within: float
    between: float
    units: int
    explanations: float

    @property
    def reliability(self) -> float:
        """Share of the variance of a unit's mean score that is the unit's, in [0, 1]."""
        noise = self.within**2 / self.explanations
        total = self.between**2 + noise
        return self.between**2 / total if total > 0 else 0.0


def noise_of(scores: Sequence[Sequence[float]]) -> Noise | None:
    """Of the scores of each unit's explanations; None for fewer than two units with several.

    By mean squares (Searle 1971, ch. 9.9); units may have different numbers.
    """
    held = [np.asarray(of, dtype=np.float64) for of in scores if len(of) > 1]
    if len(held) < 2:
        return None
    sizes = np.array([len(of) for of in held], dtype=np.float64)
    total = float(sizes.sum())
    within = sum(float(((of - of.mean()) ** 2).sum()) for of in held) / (total - len(held))
    means = np.array([of.mean() for of in held])
    grand = float((sizes * means).sum() / total)
    between = float((sizes * (means - grand) ** 2).sum()) / (len(held) - 1)
    typical = (total - float((sizes**2).sum()) / total) / (len(held) - 1)
    spread = max(0.0, (between - within) / typical)
    return Noise(within**0.5, spread**0.5, len(held), typical)
