"""Planted blocks are found, and planted faults in them are caught."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.linalg import block_diag

from polycode_plugins import theory
from polycode_plugins.errors import DataError


def planted(seed=0):
    """Pentagon, tetrahedron, pair and a lone feature at different scales; rotated, shuffled."""
    rng = np.random.default_rng(seed)
    parts = [
        2.0 * theory.polytope("pentagon"),
        0.7 * theory.polytope("tetrahedron"),
        1.3 * theory.polytope("pair"),
        np.array([[1.0]]),
    ]
    w = np.pad(block_diag(*parts), ((0, 1), (0, 2)))  # one dead feature, two spare dimensions
    turn, _ = np.linalg.qr(rng.standard_normal((w.shape[1],) * 2))
    order = rng.permutation(len(w))
    place = np.argsort(order)  # where each planted row went
    bounds = np.cumsum([0, 5, 4, 2, 1, 1])
    groups = [tuple(sorted(place[a:b].tolist())) for a, b in itertools.pairwise(bounds)]
    return (w @ turn)[order], groups


@pytest.mark.parametrize("seed", range(3))
def test_planted_blocks_are_recovered(seed):
    w, groups = planted(seed)
    found = theory.find_blocks(w, tolerance=1e-6)
    assert [block.features for block in found.blocks] == groups[:4]
    assert found.ignored == groups[4]
    assert [block.dimension for block in found.blocks] == [2, 3, 1, 1]
    np.testing.assert_allclose([b.capacity for b in found.blocks], [2, 3, 1, 1], atol=1e-12)
    assert all(block.saturated and block.semi_orthogonal for block in found.blocks)
    assert found.block_semi_orthogonal
    assert found.dimensions == 9


def test_noise_below_the_tolerance_does_not_join_blocks():
    w, groups = planted()
    noisy = w + 1e-4 * np.random.default_rng(1).standard_normal(w.shape)
    assert [b.features for b in theory.find_blocks(noisy, 0.01).blocks] == groups[:4]
    assert theory.find_blocks(noisy, 0.01).block_semi_orthogonal
    assert len(theory.find_blocks(noisy, 1e-6).blocks) == 1


def test_a_distorted_block_is_caught_and_the_others_are_not_blamed():
    w, groups = planted()
    w[groups[0][0]] *= 1.5  # one corner of the pentagon out of shape
    found = theory.find_blocks(w, tolerance=0.01)
    assert [b.features for b in found.blocks] == groups[:4]
    assert [b.semi_orthogonal for b in found.blocks] == [False, True, True, True]
    assert [b.saturated for b in found.blocks] == [False, True, True, True]
    assert not found.block_semi_orthogonal
    assert found.blocks[0].capacity < 1.99


def test_a_feature_between_two_blocks_joins_them_and_wastes_capacity():
    w, groups = planted()
    bridge = w[groups[0][0]] + w[groups[1][0]]
    found = theory.find_blocks(np.vstack([w, bridge]), tolerance=0.01)
    assert found.blocks[0].features == tuple(sorted((*groups[0], *groups[1], len(w))))
    assert found.blocks[0].dimension == 5
    assert not found.blocks[0].saturated
    assert not found.blocks[0].semi_orthogonal


def test_a_random_embedding_is_one_block_that_saturates_nothing():
    w = np.random.default_rng(0).standard_normal((12, 5))
    (block,) = theory.find_blocks(w).blocks
    assert block.dimension == 5
    assert block.capacity < 4.9
    assert not block.semi_orthogonal


@pytest.mark.parametrize("kurtosis", [4.0, 20.0])
def test_the_optimum_is_block_semi_orthogonal(kurtosis):
    v = np.random.default_rng(0).exponential(size=20)
    found = theory.find_blocks(theory.optimal_embedding(v, kurtosis, 6), tolerance=1e-9)
    capacity = theory.optimal_allocation(v, kurtosis, 6)
    assert found.block_semi_orthogonal
    assert sum(block.dimension for block in found.blocks) == 6
    assert found.ignored == tuple(np.flatnonzero(capacity == 0).tolist())
    assert found.blocks[0].capacity == pytest.approx(capacity[capacity < 1].sum(), abs=1e-9)


def test_what_has_no_blocks_is_refused():
    with pytest.raises(DataError, match="zero everywhere"):
        theory.find_blocks(np.zeros((3, 2)))
    with pytest.raises(DataError, match="tolerance must be > 0"):
        theory.find_blocks(np.eye(2), tolerance=0)


def test_what_is_exactly_at_the_tolerance_is_as_the_documentation_says():
    """A feature at the tolerance is ignored, and a spread at the tolerance is semi-orthogonal."""
    assert theory.find_blocks([[1.0, 0.0], [0.0, 0.5]], tolerance=0.5).ignored == (1,)
    assert theory.find_blocks([[1.0, 0.0], [0.0, 0.5]], tolerance=0.49).ignored == ()
    # Rows (3, 1) and (1, 3) over 4: eigenvalues 1 and 1/4 of the Gram matrix, spread 1.2.
    (block,) = theory.find_blocks([[0.75, 0.25], [0.25, 0.75]], tolerance=0.3).blocks
    assert block.spread == pytest.approx(1.2)
    assert not block.semi_orthogonal
