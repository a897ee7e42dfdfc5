"""What one more explanation would change: planted variances, and their share."""

from __future__ import annotations

import numpy as np
import pytest

from polycode_plugins.explainers.comparison.statistics.noise import Noise, noise_of


@pytest.mark.parametrize("explanations", [2, 5])
def test_reliability_is_the_squared_correlation_of_a_mean_with_the_truth(explanations):
    rng = np.random.default_rng(0)
    true = rng.normal(0.5, 0.2, 8000)
    scores = true[:, None] + rng.normal(0, 0.3, (8000, explanations))
    found = noise_of(list(scores))
    assert found.within == pytest.approx(0.3, rel=0.05)
    assert found.between == pytest.approx(0.2, rel=0.08)
    assert (found.units, found.explanations) == (8000, explanations)
    squared = np.corrcoef(scores.mean(axis=1), true)[0, 1] ** 2
    assert found.reliability == pytest.approx(squared, abs=0.03)


def test_noise_alone_has_no_reliability_and_no_noise_nothing_to_divide():
    assert Noise(0.3, 0.0, 5, 2.0).reliability == 0
    assert Noise(0.0, 0.0, 5, 2.0).reliability == 0
    rng = np.random.default_rng(1)
    assert noise_of([rng.normal(0, 1, 3) for _ in range(3000)]).between < 0.15
    assert noise_of([[0.1, 0.2], [0.4]]) is None
    assert noise_of([[0.1, 0.2], [0.4], [0.4, 0.5]]).units == 2
