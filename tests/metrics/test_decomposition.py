"""Decompositions of symmetric matrices."""

import numpy as np
import pytest
import torch

from polycode_plugins.metrics import decomposition

ROWS = torch.randn(7, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_eigenvalues_come_with_and_without_their_vectors():
    matrix = ROWS @ ROWS.T
    values, vectors = decomposition.eigen(matrix, vectors=True)
    assert torch.allclose(vectors * values @ vectors.T, matrix)
    alone, none = decomposition.eigen(matrix, vectors=False)
    assert none is None
    assert alone.numpy() == pytest.approx(values.numpy())


def test_rounding_is_no_negative_variance():
    values = torch.tensor([-1e-17, 0.0, 1.0, 3.0], dtype=torch.float64)
    assert decomposition.descending(values, 3).tolist() == [3.0, 1.0, 0.0]
    assert decomposition.descending(values, 4).tolist()[-1] == 0.0


@pytest.mark.parametrize("of_rows", [False, True])
def test_the_leading_vector_is_that_of_all_of_them(of_rows):
    matrix = ROWS.T @ ROWS
    right = np.linalg.eigh(matrix.numpy())[1][:, -1]
    found = decomposition.leading((ROWS if of_rows else matrix).numpy(), of_rows=of_rows)
    assert found[found.abs().argmax()] > 0
    assert np.abs(found.numpy()) == pytest.approx(np.abs(right), abs=1e-8)
    assert abs(float(found.numpy() @ right)) == pytest.approx(1)


def test_of_three_features_all_vectors_tell():
    assert decomposition.leading(np.eye(3)) is None
