"""Whether sites agree: planted, and by chance."""

from __future__ import annotations

import numpy as np

from polycode_plugins.explainers.comparison.statistics.agreement import disagreement
from polycode_plugins.explainers.comparison.statistics.resampling import BOOTSTRAPS, Clusters


def kind(means: list[float], units: int, rng: np.random.Generator, spread: float = 0.1) -> Clusters:
    """Other units at each site, with scores of their own in unlike numbers."""
    sites, rows = len(means), units * len(means)
    totals, counts = np.zeros((2, rows, sites))
    at = np.repeat(np.arange(sites), units)
    several = rng.integers(1, 3, rows)
    totals[np.arange(rows), at] = (np.array(means)[at] + rng.normal(0, spread, rows)) * several
    counts[np.arange(rows), at] = several
    return Clusters(totals, counts, at.astype(np.int64))


def test_the_p_value_is_even_where_all_sites_have_one_difference():
    p = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        first = kind([0.5, 0.7, 0.3, 0.6], 10, rng)
        second = kind([0.4, 0.6, 0.2, 0.5], 10, rng)  # a tenth less at each
        p.append(disagreement(first, second, rng))
    assert 0.3 < np.mean(p) < 0.7
    assert np.mean(np.array(p) < 0.1) < 0.3


def test_a_site_that_goes_the_other_way_is_found():
    rng = np.random.default_rng(0)
    first = kind([0.5, 0.5, 0.5], 12, rng)
    second = kind([0.3, 0.3, 0.7], 12, rng)
    assert disagreement(first, second, rng) < 0.01
    assert disagreement(kind([0.2, 0.2, -0.2], 12, rng), None, rng) < 0.01
    assert disagreement(kind([0.2, 0.2, 0.2], 12, rng), None, rng) > 0.05


def test_one_site_and_sites_without_spread_agree_with_nobody():
    rng = np.random.default_rng(0)
    assert disagreement(kind([0.5], 12, rng), kind([0.4], 12, rng), rng) is None
    assert disagreement(kind([0.5, 0.4], 1, rng), kind([0.5, 0.4], 1, rng), rng) is None
    assert disagreement(kind([0.5, 0.4], 9, rng, 0.0), kind([0.5, 0.4], 9, rng, 0.0), rng) is None


def test_the_least_p_value_is_one_of_all_draws():
    rng = np.random.default_rng(0)
    first = kind([0.0, 9.0], 30, rng)
    assert disagreement(first, kind([9.0, 0.0], 30, rng), rng) == 1 / (BOOTSTRAPS + 1)
