"""What is taken for dependence of rows, and what for chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import toeplitz

from polycode_plugins.metrics.spectrum.rows.dependence import (
    Groups,
    Moments,
    _beside,
    _length,
    _places,
    dependence,
    divided,
    moments,
)

GROUPS, SIZE, SAMPLES = 32, 12, 10_000.0


def planted(surplus: float) -> Groups:
    """Groups whose scatter matrices are so many standard errors of chance more than those of
    independent rows."""
    square = 1 + surplus * np.sqrt(4 / (SIZE * (SIZE - 1) * GROUPS))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (GROUPS, SIZE, SIZE))
    apart = np.tril(signs, -1) + np.tril(signs, -1).swapaxes(1, 2)
    rest = 1 - 1 / (GROUPS / 2)
    return Groups(
        counts=np.full(GROUPS, SAMPLES),
        rest=np.full(GROUPS, rest),
        apart=apart * np.sqrt(square * SAMPLES / rest),
        sums=np.zeros((GROUPS, SIZE)),
        directions=np.stack([np.eye(SIZE)] * 2),
    )


@pytest.mark.parametrize(("surplus", "dependent"), [(2.5, False), (3.5, True)])
def test_rows_are_dependent_from_three_standard_errors_on(surplus, dependent):
    found = dependence(planted(surplus), None, None)
    assert found.square == pytest.approx(1 + surplus * np.sqrt(4 / (12 * 11 * 32)), rel=1e-3)
    assert found.correlation.independent is not dependent


def grouped(rows: np.ndarray) -> Moments:
    """Moments of one block, of groups of rows [groups, samples, directions]."""
    mean = rows.mean(axis=1)
    left = rows - mean[:, None]
    counts = np.full(len(rows), rows.shape[1])
    found = divided(counts, mean, left.swapaxes(1, 2) @ left)
    return moments(found, [np.arange(rows.shape[2])])


def test_the_error_of_independent_rows_is_their_spread():
    found = [grouped(np.random.default_rng(s).standard_normal((32, 24, 10))) for s in range(60)]
    square = np.array([f.square for f in found])
    cube = np.array([f.cube for f in found])
    sums = np.array([f.values[1] for f in found])
    for values in (square, cube, sums):
        assert abs(values.mean() - 1) < 4 * values.std() / np.sqrt(60)
    assert found[0].square_chance == pytest.approx(square.std(), rel=0.3)
    assert found[0].chance == pytest.approx([square.std(), sums.std(), cube.std()], rel=0.35)
    # The larger of two estimates of it: somewhat more.
    assert 0.9 < np.mean([f.error for f in found]) / square.std() < 1.7
    more = np.mean([f.errors for f in found], axis=0) / found[0].chance
    assert np.all((more > 1) & (more < 1.6))


def test_the_moments_of_correlated_rows_are_those_of_their_correlation():
    """Planted: an autoregression beside a share that is common to a document of 20 rows."""
    correlation = 0.8 * toeplitz(0.6 ** np.arange(20)) + 0.2
    root = np.linalg.cholesky(correlation)
    found = [
        grouped(root @ np.random.default_rng(s).standard_normal((60, 20, 10))) for s in range(30)
    ]
    square = np.trace(correlation @ correlation) / 20
    cube = np.trace(correlation @ correlation @ correlation) / 20
    for values, truth in (
        ([f.square for f in found], square),
        ([f.cube for f in found], cube),
        ([f.values[1] for f in found], correlation.sum() / 20),
    ):
        assert np.mean(values) == pytest.approx(truth, rel=0.06)
    spread = np.std([f.square for f in found])
    assert np.mean([f.error for f in found]) == pytest.approx(spread, rel=0.35)


def free(correlation: np.ndarray, norms: np.ndarray) -> tuple[float, float]:
    """tr (D R)^2 / n and tr (D R)^3 / n of norms in an order that has nothing to do with R."""
    product = norms[:, None] * correlation
    return np.trace(product @ product) / len(norms), (
        np.trace(product @ product @ product) / len(norms)
    )


def test_heavy_norms_are_taken_off_the_moments_of_correlated_rows():
    rng = np.random.default_rng(0)
    norms = rng.gamma(3.0, 1 / 3, 500)
    norms /= norms.mean()
    root = rng.standard_normal((500, 250))  # as free of the norms as matrices can be
    correlation = root @ root.T / 250
    correlation *= 500 / np.trace(correlation)
    square, cube = free(correlation, norms)
    tails, tails_cube = np.mean(norms**2), np.mean(norms**3)

    def of(square: float, cube: float) -> Moments:
        values = np.array([square, 1.0, cube])
        return Moments(
            values=values, without=np.stack([values * 0.999, values * 1.001]),
            chance=np.full(3, 1e-3), square=square, cube=cube, error=1e-3, square_chance=1e-3,
            blocks=1,
        )  # fmt: skip

    left = _beside(of(square, cube), of(tails, tails_cube), tails, tails_cube)
    identity = np.eye(500)
    assert left.square == pytest.approx(free(correlation, np.ones(500))[0], rel=0.03)
    assert left.cube == pytest.approx(free(correlation, np.ones(500))[1], rel=0.06)
    assert left.values == pytest.approx([left.square, 1.0, left.cube], rel=1e-6)
    alone = _beside(of(*free(identity, norms)), of(tails, tails_cube), tails, tails_cube)
    assert [alone.square, alone.cube] == pytest.approx([1, 1])


def test_where_blocks_of_directions_lie_keeps_their_mean_log_rank():
    held = planted(0.0)
    rng = np.random.default_rng(0)
    ranks = np.sort(rng.uniform(1, 300, (2 * SIZE, 5)), axis=0)
    ranks[-1, -1] = 300.0
    weights = rng.dirichlet(np.ones(5), 2 * SIZE)
    blocks = [np.arange(0, 6), np.arange(6, SIZE)]
    grid, found = _places(held, blocks, lambda _: (ranks, weights))
    assert grid[0] == pytest.approx(1)
    assert grid[-1] == pytest.approx(300)
    assert found.min() >= 0
    assert found.sum(axis=1) == pytest.approx(1)
    logs = (np.log(ranks) * weights).sum(axis=1).reshape(2, SIZE).mean(axis=0)
    expected = [logs[block].mean() for block in blocks]
    assert found @ np.log(grid) == pytest.approx(expected)


@pytest.mark.parametrize(("documents", "length"), [(640, 1), (640, 25), (6400, 25)])
def test_the_length_of_documents_shows_in_how_unevenly_groups_are_filled(documents, length):
    found = []
    for seed in range(20):
        of = np.random.default_rng(seed).integers(0, 64, documents)
        found.append(_length(np.bincount(of, minlength=64) * float(length)))
    assert np.mean(found) == pytest.approx(length, rel=0.15)


def test_the_chance_of_squares_is_that_of_independent_elements():
    """Planted: elements off the diagonal that are normal, so that their squares vary by 2."""
    size, held = 4, 24
    lower = np.tril_indices(size, -1)
    found = []
    for seed in range(600):
        apart = np.zeros((held, size, size))
        apart[:, *lower] = np.random.default_rng(seed).standard_normal((held, len(lower[0])))
        apart = (apart + apart.swapaxes(1, 2)) * np.sqrt(SAMPLES)
        groups = Groups(
            np.full(held, SAMPLES), np.full(held, 1.0), apart, np.zeros((held, size)),
            np.stack([np.eye(size)] * 2),
        )  # fmt: skip
        found.append(moments(groups, [np.arange(size)]))
    spread = np.std([f.square for f in found])
    assert found[0].square_chance == pytest.approx(spread, rel=0.1)
    assert found[0].chance[0] == pytest.approx(spread, rel=0.1)
    # Groups that say the same leave the error to chance.
    same = moments(planted(9.0), [np.arange(SIZE)])
    assert same.error == pytest.approx(same.square_chance * same.square)
