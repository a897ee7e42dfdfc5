"""Calibration."""

from __future__ import annotations

import numpy as np
import pytest
from planted import (
    planted_comparison,
)

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.base import (
    Simulation,
    Simulator,
)
from polycode_plugins.explainers.lookup import TokenLookupExplainer
from polycode_plugins.explainers.scoring import calibration


def test_linear_calibration_is_least_squares_and_says_a_negative_slope():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 10, 200)
    y = -2 * x + 3 + rng.normal(0, 0.1, 200)
    fitted = calibration.fit("linear", x, y)
    slope, intercept = np.polyfit(x, y, 1)
    assert (fitted.slope, fitted.intercept) == pytest.approx((slope, intercept), rel=1e-9)
    assert "negative slope" in fitted.warning
    assert not calibration.fit("linear", x, -y).warning


def test_percentile_calibration_gives_the_distribution_of_the_truth_and_keeps_the_order():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=500), rng.exponential(size=500)
    mapped = calibration.fit("percentile", x, y)(x)
    assert np.sort(mapped) == pytest.approx(np.sort(y), abs=1e-12)
    assert (np.diff(mapped[np.argsort(x)]) >= 0).all()


def test_a_constant_simulation_cannot_be_calibrated():
    with pytest.raises(ValueError, match="constant"):
        calibration.fit("linear", np.ones(5), np.arange(5.0))


def test_a_negative_slope_of_the_calibration_is_said_and_turns_the_sign():
    class Inverse(Simulator):
        name = "inverse"

        def simulate_many(self, tasks):
            found = TokenLookupExplainer().simulator().simulate_many(tasks)
            return [[Simulation(10 - s.expected) for s in sims] for sims in found]

    plain = planted_comparison(units="neuron", simulator=Inverse())
    turned = planted_comparison(units="neuron", simulator=Inverse(), calibrate="linear")
    for a, b in zip(plain, turned, strict=True):
        assert a.score("correlation") < -0.9
        assert not a.evaluation.calibration.warning
        assert b.score("correlation") == pytest.approx(-a.score("correlation"), abs=1e-9)
        assert "negative slope" in b.evaluation.calibration.warning
        assert b.score("r_squared") > 0.9
    with pytest.raises(DataError, match="keeps no records for a calibration"):
        planted_comparison(protocol="marshall-kirchner", calibrate="linear")
