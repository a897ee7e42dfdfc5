"""What is made of two arrays before any estimator sees them."""

from __future__ import annotations

import numpy as np
import pytest

from polycode_plugins.errors import DataError
from polycode_plugins.information.prepare import prepare
from polycode_plugins.information.samples import Floats


def steps(values: int, seed: int, samples: int = 1000) -> Floats:
    """Samples on a grid, every value of which occurs."""
    return np.random.default_rng(seed).permutation(np.arange(samples) % values) / 7.0


@pytest.mark.parametrize(
    ("x", "y", "counted"), [(31, 32, True), (31, 33, False), (33, 31, False), (10, 100, True)]
)
def test_values_are_counted_where_there_is_a_sample_for_each_pair(
    x: int, y: int, counted: bool
) -> None:
    pair = prepare(steps(x, 0), steps(y, 1), None, 0)
    assert (pair.counted is not None) is counted
    assert pair.atoms


@pytest.mark.parametrize(("width", "queries"), [(2, 10_000), (3, 2_000), (10, 2_000), (11, 1_000)])
def test_neighbours_are_sought_for_fewer_samples_in_many_dimensions(
    width: int, queries: int
) -> None:
    rng = np.random.default_rng(0)
    pair = prepare(rng.normal(size=(400, width)), rng.normal(size=(400, width)), None, 0)
    assert pair.queries() == queries


def test_in_more_dimensions_than_neighbours_tell_of_none_are_sought() -> None:
    rng = np.random.default_rng(0)
    wide = prepare(rng.normal(size=(400, 64)), rng.normal(size=(400, 64)), None, 0)
    assert wide.queries() == 1_000
    wider = prepare(rng.normal(size=(400, 64)), rng.normal(size=(400, 65)), None, 0)
    with pytest.raises(DataError, match="129 dimensions"):
        wider.queries()


def test_labels_of_which_there_are_too_few_each_are_said() -> None:
    y = np.random.default_rng(0).normal(size=1000)
    assert not prepare(np.arange(1000) % 100, y, None, 0).warnings
    said = prepare(np.arange(1000) % 101, y, None, 0).warnings
    assert any("101 labels for 1000 samples" in s for s in said)


def test_critics_see_uncorrelated_gaussian_coordinates_and_labels_as_columns() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, 2))
    curved = np.column_stack([z[:, 0], z[:, 0] ** 3 + 0.1 * z[:, 1]])
    pair = prepare(curved, np.exp(rng.normal(size=2000)), None, 0)
    for seen in pair.critic_arrays():
        assert seen.mean(0) == pytest.approx(0, abs=1e-5)
        assert np.atleast_2d(np.cov(seen.T)) == pytest.approx(np.eye(seen.shape[1]), abs=0.05)
        assert np.abs(seen).max() < 4  # no tail is left
    labels = prepare(curved, np.arange(2000) % 3, None, 0)
    x, y = labels.critic_arrays()
    assert x is labels.x_scores
    assert y.shape == (2000, 3)
    assert y.std(0) == pytest.approx(1)
