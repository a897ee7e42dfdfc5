"""Verdicts go by intervals, and intervals cover."""

from __future__ import annotations

import numpy as np
import pytest

from polycode_plugins.experiments import claims


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (claims.Effect(1.0, 0.6, 1.4), "holds"),
        (claims.Effect(0.5, 0.2, 0.8), "cannot be judged at this scale"),
        (claims.Effect(0.1, -0.1, 0.3), "does not hold"),
        (claims.Effect(0.5), "holds"),
        (claims.Effect(0.49), "does not hold"),
        (claims.Effect(float("nan")), "cannot be judged at this scale"),
    ],
)
def test_the_interval_decides(effect, expected):
    assert claims.at_least(0.5).judge(effect) == expected


def test_intervals_cover_the_truth():
    generator = np.random.default_rng(0)
    means = [claims.mean_effect(generator.normal(3, 2, 8)) for _ in range(400)]
    shares = [claims.share_effect(int(generator.binomial(30, 0.9)), 30) for _ in range(400)]
    for effects, truth in ((means, 3.0), (shares, 0.9)):
        assert 0.92 < np.mean([e.low <= truth <= e.high for e in effects]) < 0.98
    skewed = claims.bootstrap_effect(lambda i: float(np.arange(50)[i].mean()), 50)
    assert skewed.low < 24.5 < skewed.high
