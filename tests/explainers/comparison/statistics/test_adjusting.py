"""Differences at equal covariates, against regressions written out."""

from __future__ import annotations

import numpy as np
import pytest

from polycode_plugins.explainers.comparison.statistics.adjusting import Observed, adjusted, overlap


def units(name: str, scores: np.ndarray, covariates: np.ndarray) -> Observed:
    return [f"{name}{i}" for i in range(len(scores))], scores, covariates


def test_the_coefficient_is_that_of_least_squares_with_a_level_for_each_site():
    rng = np.random.default_rng(0)
    pairs, rows, target = [], [], []
    for site, level in enumerate((0.1, 0.5)):
        sides = []
        for kind, shift in ((1.0, 0.3), (0.0, 0.0)):
            x = rng.normal(shift, 1, (25, 2))
            y = 0.2 * kind + x @ [0.1, -0.3] + level + 0.1 * rng.normal(size=25)
            sides.append(units(f"{site}{kind}", y, x))
            rows.append(np.column_stack([np.full(25, kind), x, np.tile(np.eye(2)[site], (25, 1))]))
            target.append(y)
        pairs.append(tuple(sides))
    value, interval = adjusted(pairs, np.random.default_rng(1))
    design, target = np.concatenate(rows), np.concatenate(target)
    found = np.linalg.lstsq(design, target, rcond=None)[0]
    left = target - design @ found
    assert value == pytest.approx(found[0])
    error = np.sqrt(np.linalg.inv(design.T @ design)[0, 0] * left @ left / (100 - 5))
    assert interval[0] < 0.2 < interval[1]
    assert sum(interval) / 2 == pytest.approx(value)
    assert (interval[1] - interval[0]) / 2 == pytest.approx(1.98 * error, rel=0.2)


def test_kinds_that_covariates_tell_apart_have_no_coefficient():
    x = np.linspace(0, 1, 10)[:, None]
    same = units("a", x[:, 0], np.ones((10, 1))), units("b", x[:, 0], np.zeros((10, 1)))
    assert adjusted([same], np.random.default_rng(0)) == (None, None)
    few = units("a", x[:2, 0], x[:2]), units("b", x[:1, 0], x[:1])
    assert adjusted([few], np.random.default_rng(0)) == (None, None)


def test_the_overlap_is_the_smaller_share_between_the_ends_of_the_other_kind():
    def of(one: np.ndarray, other: np.ndarray) -> float:
        return overlap([(units("a", one, one[:, None]), units("b", other, other[:, None]))])

    assert of(np.arange(10.0), np.arange(10.0)) == 1
    assert of(np.arange(10.0), np.arange(5.0, 15.0)) == 0.5
    assert of(np.arange(10.0), np.arange(20.0, 30.0)) == 0
    assert of(np.arange(10.0), np.arange(3.0, 7.0)) == pytest.approx(0.4)
    assert of(np.arange(10.0), np.empty(0)) == 0
    # Each covariate by itself is shared, and the line that parts the kinds is not.
    t = np.linspace(0, 1, 20)
    one, other = np.column_stack([t, t]), np.column_stack([t, t + 0.1])
    for rows in (one, other):
        rows[:, 1] += 0.01 * np.sin(40 * t)
    assert overlap([(units("a", t, one), units("b", t, other))]) == 0
