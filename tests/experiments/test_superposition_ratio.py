"""Sticky regions are found where one was planted, and nowhere on a smooth curve."""

from __future__ import annotations

import numpy as np
import pytest
from ratio_curves import P, curve
from verdicts import outcome, verdict

from polycode_plugins import theory
from polycode_plugins.experiments import superposition_ratio as module


def test_the_fitted_entropy_is_the_planted_one():
    numbers = curve(theory.dimensions_per_feature(1 - P, 6.0), noise=0.005)
    assert module.fitted_element_bits(numbers) == pytest.approx(6.0, rel=0.05)
    assert outcome(module.EXPERIMENT, numbers, "entropy of an element") == "holds"
    assert outcome(module.EXPERIMENT, numbers, "entropy of the data") == "does not hold"
    assert outcome(module.EXPERIMENT, curve(0.9 * P), "fewer dimensions on a feature") == (
        "does not hold"
    )


def test_a_curve_that_rises_is_no_trend():
    numbers = curve(np.linspace(0.2, 0.9, 58))
    assert outcome(module.EXPERIMENT, numbers, "The sparser the features") == "does not hold"


def test_too_short_a_curve_is_not_judged():
    numbers = {"curve": curve(P)["curve"].iloc[::10]}
    found = verdict(module.EXPERIMENT, numbers, "sticks at 1/2")
    assert found.outcome == "cannot be judged at this scale"
    assert "too few" in found.reason
