"""The Gaussian estimate: its bias, its standard error, and where it suffices."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gaussian_pairs import gaussian_pair

from polycode_plugins.errors import DataError
from polycode_plugins.information import (
    estimate_gaussian,
)
from polycode_plugins.information.gaussian import canonical, wishart_bias
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


def test_a_bound_that_is_lower_by_more_than_the_fit_costs_bears_no_gaussian_out() -> None:
    """Planted: ten coordinates a side, whose 100 covariances cost .07 nats or so to fit."""
    setting: Any = SimpleNamespace(n_samples=1000, x_width=10, y_width=10, held_out=None)
    gaussian = Estimate(0.5, 1e-3)
    for lower, enough in ((0.07, True), (0.3, False)):
        mine = Estimate(0.5 - lower, 1e-3, baseline=0.5 - lower)
        assert _gaussian_suffices({"gaussian": gaussian, "mine": mine}, setting) is enough


def test_coordinates_that_decide_each_other_and_too_few_samples_are_refused() -> None:
    x = np.random.default_rng(0).normal(size=(200, 2))
    with pytest.raises(DataError, match="infinite"):
        estimate_gaussian(x, x @ np.array([[1.0, 2.0], [0.5, -1.0]]))
    y = np.random.default_rng(1).normal(size=(8, 3))
    assert math.isfinite(estimate_gaussian(x[:8, :2], y).nats)
    with pytest.raises(DataError, match=r"2 \+ 3 dimensions"):
        estimate_gaussian(x[:6, :2], y[:6])


def test_variates_are_of_unit_variance_and_as_correlated_as_planted() -> None:
    x, y, _ = gaussian_pair([0.8, 0.3], 20_000, 0)
    x = 100 * x @ np.array([[1.0, 0.9], [0.0, 0.1]]) + 7  # the same to canonical variates
    found = canonical(x, y)
    a, b = found.x_variates(x), found.y_variates(y)
    assert np.allclose(a.mean(0), 0, atol=1e-9)
    assert np.allclose(a.T @ a / len(a), np.eye(2), atol=1e-9)
    assert np.allclose(b.T @ b / len(b), np.eye(2), atol=1e-9)
    assert np.allclose(a.T @ b / len(a), np.diag([0.8, 0.3]), atol=0.02)
