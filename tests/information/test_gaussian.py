"""The Gaussian estimate: its bias, its standard error, and where it suffices."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gaussian_pairs import gaussian_pair

from polycode_plugins.information import (
    estimate_gaussian,
)
from polycode_plugins.information.gaussian import wishart_bias
from polycode_plugins.information.recommend import _gaussian_suffices
from polycode_plugins.information.samples import Estimate


def test_gaussian_estimate_is_unbiased_where_the_plug_in_is_not() -> None:
    n, p, q = 60, 4, 3
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        found.append(estimate_gaussian(rng.normal(size=(n, p)), rng.normal(size=(n, q))).nats)
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(300)
    bias = wishart_bias(p, q, n)
    assert bias == pytest.approx(p * q / (2 * n), rel=0.15)
    assert bias > 10 * np.std(found) / math.sqrt(300)  # the test could see it missing


@pytest.mark.parametrize("correlations", [[0.0], [0.6], [0.8, 0.3, 0.0]])
def test_the_standard_error_is_the_spread_over_samples(correlations: list[float]) -> None:
    n, found = 300, []
    for seed in range(400):
        x, y, _ = gaussian_pair(correlations, n, seed)
        found.append(estimate_gaussian(x, y))
    spread = np.std([e.nats for e in found])
    # The spread of 400 is known to 3.5%; of one chi-squared, where nothing is shared, to 13%.
    off = 0.35 if correlations == [0.0] else 0.12
    assert np.mean([e.error for e in found]) == pytest.approx(spread, rel=off)


@pytest.mark.parametrize(("gain", "enough"), [(0.0, True), (0.003, True), (0.012, False)])
def test_what_training_adds_beyond_a_hundredth_of_a_nat_is_no_gaussian(
    gain: float, enough: bool
) -> None:
    """Planted: errors so small that only the size of the gain decides."""
    setting: Any = SimpleNamespace(n_samples=100_000, x_width=1, y_width=1, held_out=None)
    estimates = {
        "gaussian": Estimate(0.5, 1e-4),
        "mine": Estimate(0.5 + gain, 1e-4, baseline=0.5, gain=gain, gain_error=1e-4),
    }
    assert _gaussian_suffices(estimates, setting) is enough
    # A gain that chance explains is none, whatever its size.
    chance = replace(estimates["mine"], gain_error=0.02)
    assert _gaussian_suffices({**estimates, "mine": chance}, setting)
