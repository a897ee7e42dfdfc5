"""Means over units and sites: their variance, intervals and tests, against definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from polycode_plugins.explainers.comparison.statistics import resampling
from polycode_plugins.explainers.comparison.statistics.resampling import (
    Clusters,
    bootstrap_weights,
    clusters_of,
    interval,
    p_value,
    site_moments,
    strata_of,
    within,
)


def alone(scores: np.ndarray) -> Clusters:
    """Units with one score at the one site there is."""
    n = len(scores)
    return Clusters(scores[:, None], np.ones((n, 1)), np.zeros(n, dtype=np.int64))


@pytest.mark.parametrize("at_once", [resampling.AT_ONCE, 50])
def test_units_are_drawn_with_replacement_from_their_stratum(monkeypatch, at_once):
    monkeypatch.setattr(resampling, "AT_ONCE", at_once)  # all draws at once, or 7 and 16
    strata = np.array([4, 9, 4, 4, 9, 4, 4, 4, 9, 4])
    weights = bootstrap_weights(strata, 4000, np.random.default_rng(0))
    for stratum, size in ((4, 7), (9, 3)):
        drawn = weights[:, strata == stratum]
        assert (drawn.sum(axis=1) == size).all()
        # Each as often as any, independently: the moments of a multinomial, at 4 standard errors.
        assert drawn.mean(axis=0) == pytest.approx(np.ones(size), abs=4 / 4000**0.5)
        covariance = np.eye(size) - 1 / size
        assert np.cov(drawn.T) == pytest.approx(covariance, abs=4 * 2 / 4000**0.5)
        assert len(np.unique(drawn, axis=0)) > 9


def test_the_variance_of_a_site_is_that_of_a_mean():
    scores = np.random.default_rng(0).normal(3, 2, 12)
    means, variances = site_moments(alone(scores), np.ones((1, 12)))
    assert means[0, 0] == pytest.approx(scores.mean())
    assert variances[0, 0] == pytest.approx(scores.var(ddof=1) / 12)
    # A unit that is drawn twice is there twice.
    drawn = np.array([[2.0, 0, 1, 1, 1, 3, 0, 1, 1, 0, 1, 1]])
    again = np.repeat(scores, drawn[0].astype(int))
    means, variances = site_moments(alone(scores), drawn)
    assert means[0, 0] == pytest.approx(again.mean())
    assert variances[0, 0] == pytest.approx(again.var(ddof=1) / 12)
    one = np.eye(1, 12)
    assert np.isnan(site_moments(alone(scores), one)[1]).all()


def test_units_with_several_scores_vary_as_wholes():
    """Two scores each, as of both signs of a unit, which are one and the same."""
    scores = np.random.default_rng(1).normal(size=10)
    names = [f"u{i}" for i in range(10)]
    twice, _ = clusters_of([(names * 2, np.tile(scores, 2))], [([], np.empty(0))])
    assert twice.counts.tolist() == [[2.0]] * 10
    means, variances = site_moments(twice, np.ones((1, 10)))
    assert means[0, 0] == pytest.approx(scores.mean())
    assert variances[0, 0] == pytest.approx(scores.var(ddof=1) / 10)


def test_intervals_of_planted_differences_cover_and_are_as_wide_as_student_s():
    inside, ratio = 0, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(0.3, 1, 20), rng.normal(0, 1, 20)
        low, high = interval(alone(a), alone(b), rng)
        inside += low < 0.3 < high
        student = stats.t.ppf(0.975, 38) * np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 20)
        ratio.append((high - low) / 2 / student)
    assert inside >= 16
    assert np.mean(ratio) == pytest.approx(1, abs=0.08)
    a = np.random.default_rng(0).normal(0.3, 1, 20)
    low, high = interval(alone(a), None, np.random.default_rng(0))
    assert (low + high) / 2 == pytest.approx(a.mean())
    assert (high - low) / 2 == pytest.approx(
        stats.t.ppf(0.975, 19) * a.std(ddof=1) / np.sqrt(20), rel=0.15
    )


def test_p_values_are_those_of_welch_and_of_signs():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, 30), rng.normal(0, 2, 15)
    welch = stats.ttest_ind(a, b, equal_var=False).pvalue
    assert p_value(alone(a), alone(b), np.random.default_rng(1)) == pytest.approx(welch, abs=0.03)
    pairs = rng.normal(0.3, 1, 25)
    assert p_value(alone(pairs), None, np.random.default_rng(1)) == pytest.approx(
        stats.ttest_1samp(pairs, 0).pvalue, abs=0.03
    )
    assert p_value(alone(a[:1]), alone(b), rng) is None
    assert p_value(alone(a + 100), alone(b), rng) == 1 / 5001


def test_sites_that_units_tie_together_are_one_stratum():
    present = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1, 1]], dtype=bool)
    first, second, third, fourth = strata_of(present)
    assert first == third
    assert second == fourth
    assert first != second


def test_an_interval_ends_within_bounds_and_says_nothing_where_it_is_all_of_them():
    assert within((-1, 1), (-0.5, 2.0)) == (-0.5, 1)
    assert within((-1, 1), (-2.0, 2.0)) is None
    assert within((-1, 1), None) is None
