"""The interval of a difference: of independent numbers, and of ones that err together."""

from __future__ import annotations

import math

import numpy as np
import pytest

from polycode_plugins.metrics.error_correlation import ErrorCorrelation
from polycode_plugins.runs.difference.interval import between, paired, standard_error


def ends(value: float, error: float) -> tuple[float, float]:
    return value - 1.96 * error, value + 1.96 * error


@pytest.mark.parametrize("correlation", [-0.7, 0.0, 0.5, 0.95])
def test_it_holds_the_truth(correlation):
    """Two numbers whose errors go together: the difference of both, 95% of the time."""
    rng = np.random.default_rng(0)
    errors = np.array([1.0, 0.5])
    root = np.linalg.cholesky([[1, correlation], [correlation, 1]])
    inside = 0
    for _ in range(2000):
        a, b = np.array([3.0, 5.0]) + errors * (root @ rng.standard_normal(2))
        low, high = between(a, ends(a, errors[0]), b, ends(b, errors[1]), correlation)
        assert high - low == pytest.approx(2 * 1.96 * math.sqrt(1.25 - correlation), rel=1e-12)
        inside += low <= 2.0 <= high
    assert 0.935 < inside / 2000 < 0.965


def test_ends_at_unequal_distances():
    one, other = (0.0, (-3.0, 1.0)), (10.0, (8.0, 14.0))
    # Upwards count the upper end of one and the lower of the other.
    assert between(*one, *other) == (10 - math.hypot(2, 1), 15.0)
    # Wholly together: downwards the first is 3 off, so that the second's 2 leave a rise of 1, and
    # upwards it is 1 off and the second 4; nothing leads down.
    assert between(*one, *other, 1.0) == (10.0, 13.0)
    # Against one another distances add.
    assert between(*one, *other, -1.0) == (7.0, 17.0)
    # One number, twice.
    assert between(*one, *one, 1.0) == (0.0, 0.0)


def test_the_other_way_round_it_is_the_same():
    one, other = (0.3, (-1.0, 1.0)), (2.0, (1.5, 4.0))
    for correlation in (-0.4, 0.0, 0.6, 1.0):
        low, high = between(*one, *other, correlation)
        assert between(*other, *one, correlation) == pytest.approx((-high, -low))


def test_it_counts_on_the_correlation_of_errors():
    errors = ErrorCorrelation(0.9, 0.1, 50, (1.0, 0.5))
    one, other = (3.0, ends(3.0, 1.0)), (5.0, ends(5.0, 0.5))
    found, counted = paired(*one, *other, errors)
    assert counted == pytest.approx(0.8, rel=1e-4)
    assert found == pytest.approx(between(*one, *other, counted))


def test_an_interval_that_documents_deny_is_taken_for_wider():
    """Documents spread the first number twice as much as it says, the second by a tenth more, which
    may be chance: 50 documents know a spread to a tenth."""
    one, other = (3.0, (2.0, 5.0)), (5.0, ends(5.0, 0.5))
    own = standard_error(one[1])
    errors = ErrorCorrelation(0.0, 0.1, 50, (2 * own, 0.55))
    found, counted = paired(*one, *other, errors)
    assert counted == 0
    wider = 3.0 - 2 * 0.9 * 1.0, 3.0 + 2 * 0.9 * 2.0
    assert found == pytest.approx(between(3.0, wider, *other), rel=0.01)


def test_standard_error():
    assert standard_error(ends(3.0, 0.5)) == pytest.approx(0.5, rel=1e-4)
