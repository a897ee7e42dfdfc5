"""How far activations follow a stimulus."""

from __future__ import annotations

import numpy as np
import pytest
from walks import path

from polycode_plugins.data import moving_dot
from polycode_plugins.errors import DataError
from polycode_plugins.metrics import stimulus_correlation, trajectories


def test_a_code_of_the_stimulus_alone_is_followed_in_full():
    dot = moving_dot(60)
    code = dot.positions.numpy() @ np.random.default_rng(0).standard_normal((2, 30)) + 7
    found = stimulus_correlation(code, dot.positions, projections=50)
    assert found.pearson.shape == (50, 3, 2)
    assert found.r_squared == pytest.approx(1, abs=1e-9)
    assert np.all(found.correlation <= 1)
    one = trajectories(code, 50)
    expected = np.corrcoef(one.points[4, :, 1], dot.positions[:, 0])[0, 1]
    assert found.pearson[4, 1, 0] == pytest.approx(expected, abs=1e-12)


def test_noise_follows_no_more_than_chance():
    rng = np.random.default_rng(1)
    noise, stimulus = rng.standard_normal((400, 30)), moving_dot(400, size=16).positions
    found = stimulus_correlation(noise, stimulus, projections=300)
    assert found.chance == pytest.approx(3 / 399)
    assert found.mean_r_squared < 4 * found.chance
    assert found.mean < 0.12


def test_what_does_not_move_is_undefined_and_wrong_lengths_are_refused():
    values = path()
    still = np.ones((40, 1))
    found = stimulus_correlation(values, still, projections=3)
    assert np.isnan(found.pearson).all()
    assert np.isnan(found.r_squared).all()
    assert np.isnan(stimulus_correlation(np.ones((40, 5)), values[:, :2]).mean)
    with pytest.raises(DataError, match="the stimulus has 39 time steps and the path 40"):
        stimulus_correlation(values, values[1:, :1])
    with pytest.raises(DataError, match="give seed to them"):
        stimulus_correlation(trajectories(values, 3), still, seed=1)
