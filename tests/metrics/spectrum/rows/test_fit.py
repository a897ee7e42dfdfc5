"""The correlation that has the moments measured: planted, and found in them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import toeplitz

from polycode_plugins.metrics.spectrum.rows.correlation import RowCorrelation
from polycode_plugins.metrics.spectrum.rows.dependence import Moments
from polycode_plugins.metrics.spectrum.rows.fit import fitted
from polycode_plugins.metrics.spectrum.rows.moment_model import MomentModel, knots

GRID = np.geomspace(1.0, 100.0, 20)
#: Three blocks of directions: the strong, those between and the weak ones.
HELD = np.stack([np.exp(-((np.log(GRID / at)) ** 2)) for at in (2.0, 10.0, 50.0)])
HELD /= HELD.sum(axis=1, keepdims=True)


def told(values: np.ndarray, blocks: int, error: float = 0.01) -> Moments:
    """Moments that are known so well; pairs of blocks, sums, and the third over all."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (64, len(values)))
    pairs = blocks * (blocks + 1) // 2
    return Moments(
        values=values, without=values * (1 + error / 8 * signs), chance=error * values / 2,
        square=float(values[:pairs].mean()), cube=float(values[-1]), error=error * float(values[0]),
        square_chance=error, blocks=blocks,
    )  # fmt: skip


def model(blocks: int, length: float) -> MomentModel:
    count = blocks * (blocks + 1) // 2 + blocks + 1
    return MomentModel(told(np.ones(count), blocks), (GRID, HELD) if blocks > 1 else None, length)


@pytest.mark.parametrize(
    ("lag", "common", "copies"),
    [(0.0, 0.0, 1.0), (0.6, 0.0, 1.0), (0.4, 0.1, 1.0), (0.5, 0.0, 3.0)],
)
def test_expected_moments_are_those_of_the_matrix_they_describe(lag, common, copies):
    length = 300
    matrix = (1 - common) * toeplitz(lag ** np.arange(length)) + common
    square, cube = (np.trace(np.linalg.matrix_power(matrix, k)) / length for k in (2, 3))
    theta = np.array([[lag, common, np.log(copies), np.log(length)]])
    found = model(1, length).moments(theta)[0][0]
    sums = matrix.sum() / length
    expected = [copies * square, copies * sums, copies**2 * cube]
    assert found == pytest.approx(expected, rel=0.03)


def test_derivatives_of_the_residuals_are_their_differences():
    asked, rng = model(3, 50.0), np.random.default_rng(0)
    count = len(asked.knots)
    lag, common = rng.uniform(-0.3, 0.97, (3, count)), rng.uniform(0.0, 0.9, (3, count))
    theta = np.column_stack([lag, common, rng.uniform(0, 1, 3), rng.uniform(2, 5, 3)])
    within = np.tile([0.15, 0.5], (3, 1))
    slopes = asked.residuals(theta, within)[1]
    for k in range(theta.shape[1]):
        step = np.zeros(theta.shape[1])
        step[k] = 1e-6
        more, less = (asked.residuals(theta + s * step, within)[0] for s in (1, -1))
        expected = (more - less) / 2e-6
        assert slopes[:, :, k] == pytest.approx(expected, abs=2e-4 * np.abs(expected).max())


def test_what_is_planted_by_rank_is_found():
    lag = np.interp(np.log(GRID), np.log([1.0, 100.0]), [0.8, 0.2])
    asked = model(3, 50.0)
    count = len(asked.knots)
    at = np.interp(np.log(asked.knots), np.log(GRID), lag)
    theta = np.concatenate([at, np.zeros(count), [0.0, np.log(50.0)]])
    found = fitted(told(asked.moments(theta[None])[0][0], 3), (GRID, HELD), 50.0)
    planted = RowCorrelation(tuple(asked.knots), tuple(at), (0.0,) * count, length=50.0)
    ranks = np.array([2, 5, 10, 25, 50])
    squares = planted.squares(100)[ranks - 1]
    assert found.squares(100)[ranks - 1] == pytest.approx(squares, rel=0.1)
    assert squares[0] > 2 * squares[-1]
    assert found.doubts


@pytest.mark.parametrize(("lag", "copies"), [(0.6, 1.0), (0.0, 3.0)])
def test_an_autoregression_and_copies_are_told_apart(lag, copies):
    theta = np.array([[lag, 0.0, np.log(copies), np.log(40.0)]])
    found = fitted(told(model(1, 40.0).moments(theta)[0][0], 1), None, 40.0)
    assert found.lag[0] == pytest.approx(lag, abs=0.08)
    assert found.copies == pytest.approx(copies, rel=0.08)
    assert found.common[0] < 0.03


def test_what_is_assumed_of_neighbouring_ranks_is_a_random_walk_over_log_rank():
    asked = model(3, 50.0)
    count, values = len(asked.knots), 6 + 3 + 1
    gaps = np.diff(np.log(asked.knots))
    steps = np.random.default_rng(0).standard_normal((2, 1500, count - 1)) * np.sqrt(gaps)
    lag = 0.4 + np.cumsum(0.02 * steps[0], axis=1)
    common = 0.2 + np.cumsum(0.005 * steps[1], axis=1)
    ends = np.tile([0.0, np.log(50.0)], (1500, 1))
    theta = np.column_stack([np.full(1500, 0.4), lag, np.full(1500, 0.2), common, ends])
    within = np.tile([0.02, 0.005], (1500, 1))
    found = asked.residuals(theta, within)[0][:, values : values + 2 * (count - 1)]
    assert np.square(found).mean(axis=0) == pytest.approx(1, rel=0.15)


def test_one_block_has_its_knot_where_half_of_its_variance_lies():
    for at in (2.0, 10.0, 50.0):
        held = np.exp(-8 * np.log(GRID / at) ** 2)[None]
        found = knots(GRID, held / held.sum())
        assert found == pytest.approx([at], rel=0.2)
