"""Scores against formulas written down another way, and where there is no score."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.scoring.formulas import (
    absolute_deviation_score,
    auprc_score,
    balanced_accuracy,
    correlation_score,
    r_squared_score,
    why_undefined,
)

whole = st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 10)), min_size=2, max_size=40)


@given(whole)
@settings(max_examples=150, deadline=None)
def test_scores_equal_exact_rational_arithmetic(pairs):
    y, x = ([Fraction(p[i]) for p in pairs] for i in (0, 1))
    n = len(pairs)
    dy, dx = ([v - sum(values) / n for v in values] for values in (y, x))
    power = sum(a * a for a in dy) * sum(a * a for a in dx)
    r = correlation_score([float(v) for v in y], [float(v) for v in x])
    if power == 0:
        assert r is None
    else:
        expected = float(sum(a * b for a, b in zip(dy, dx, strict=True))) / math.sqrt(power)
        assert r == pytest.approx(expected, abs=1e-12)
    floats = [float(v) for v in y], [float(v) for v in x]
    squares, sizes = sum(a * a for a in y), sum(abs(a) for a in y)
    if squares == 0:
        assert r_squared_score(*floats) is None
        assert absolute_deviation_score(*floats) is None
        return
    error = sum((a - b) ** 2 for a, b in zip(y, x, strict=True))
    off = sum(abs(a - b) for a, b in zip(y, x, strict=True))
    assert r_squared_score(*floats) == pytest.approx(float(1 - error / squares), rel=1e-12)
    assert absolute_deviation_score(*floats) == pytest.approx(float(1 - off / sizes), rel=1e-12)


def test_texts_are_joined_before_scoring_not_averaged_after():
    true = [np.array([0.0, 1.0]), np.array([10.0, 11.0, 12.0])]
    simulated = [np.array([1.0, 0.0]), np.array([9.0, 12.0, 12.0])]
    together = np.corrcoef(np.concatenate(true), np.concatenate(simulated))[0, 1]
    assert correlation_score(true, simulated) == pytest.approx(together, abs=1e-12)


def test_tiny_and_huge_values_keep_their_correlation():
    x = np.array([0.0, 1.0, 2.0, 5.0])
    for scale in (1e-200, 1e200):
        assert correlation_score(scale * x, x) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("simulated", [np.zeros(5), np.full(5, 3.3)])
def test_a_constant_simulation_has_no_correlation(simulated):
    true = np.array([0.0, 0.1, 4.0, 0.0, 9.0])
    assert correlation_score(true, simulated) is None
    assert "simulated activations are constant" in why_undefined(true, simulated)


def test_a_silent_unit_has_no_score_and_a_failed_simulation_is_no_number():
    assert r_squared_score(np.zeros(3), np.ones(3)) is None
    assert "all zero" in why_undefined(np.zeros(3), np.ones(3))
    with pytest.raises(DataError, match="NaN"):
        correlation_score(np.arange(3.0), np.array([0.0, np.nan, 1.0]))
    with pytest.raises(DataError, match="one for each"):
        correlation_score(np.arange(3.0), np.arange(4.0))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=60))
@settings(max_examples=100, deadline=None)
def test_auprc_equals_scikit_learn(pairs):
    from sklearn.metrics import average_precision_score

    fires, simulated = [p[0] for p in pairs], [float(p[1]) for p in pairs]
    found = auprc_score(fires, simulated)
    if len(set(fires)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(average_precision_score(fires, simulated), abs=1e-12)


def test_auprc_is_undefined_where_all_fire_however_strongly():
    assert auprc_score([3.0, 1.0, 2.0], [0.1, 0.2, 0.3]) is None


def test_balanced_accuracy_does_not_reward_always_yes_and_leaves_failures_out():
    truth = [True] * 9 + [False]
    assert balanced_accuracy(truth, [True] * 10) == 0.5
    assert balanced_accuracy(truth, [True] * 8 + [None, False]) == 1.0
    assert balanced_accuracy([True, True], [True, True]) is None
    assert balanced_accuracy([True, False], [True, None]) is None
