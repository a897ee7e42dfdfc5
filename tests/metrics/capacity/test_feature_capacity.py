"""Capacity of features in weights, against geometry with known capacities and the direct sum."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from weight_matrices import direct, matrix

from polycode_plugins.errors import DataError
from polycode_plugins.metrics import FeatureCapacity
from polycode_plugins.metrics.capacity import feature_capacity
from polycode_plugins.theory import feature_capacity as closed_form
from polycode_plugins.theory import optimal_embedding, polytope

# -- one matrix ------------------------------------------------------------------------------------


def test_basis_shared_and_absent_features():
    rows = torch.zeros(6, 4)
    rows[0, 0], rows[1, 1] = 2.0, 0.1
    rows[2, 2], rows[3, 2] = 1.0, -1.0
    rows[4, 3] = 5.0
    found = FeatureCapacity.measure(rows)
    np.testing.assert_allclose(found.capacities, [1, 1, 0.5, 0.5, 1, 0], atol=1e-12)
    assert (found.features, found.dimensions, found.zero, found.bound) == (6, 4, 1, 4)
    assert found.total == pytest.approx(4)
    assert found.mean == pytest.approx(4 / 6)
    assert found.used == pytest.approx(1)
    assert found.monosemantic == pytest.approx(0.5)
    counts, edges = found.histogram(10)
    assert counts.tolist() == [1, 0, 0, 0, 0, 2, 0, 0, 0, 3]
    assert edges[[0, -1]].tolist() == [0, 1]


@pytest.mark.parametrize("shape", [(300, 20), (20, 300), (50, 50), (1, 7), (7, 1)])
def test_agrees_with_the_definition(shape, monkeypatch):
    monkeypatch.setattr(feature_capacity, "CHUNK_VALUES", 170)  # many uneven chunks
    rows = matrix(*shape)
    found = FeatureCapacity.measure(rows)
    np.testing.assert_allclose(found.capacities, direct(rows), rtol=1e-9)
    np.testing.assert_allclose(found.capacities, closed_form(rows), rtol=1e-9)
    assert found.total <= found.bound + 1e-9
    columns = FeatureCapacity.measure(rows.T, features="columns")
    np.testing.assert_allclose(columns.capacities, found.capacities, rtol=1e-12)
    assert (columns.features, columns.dimensions) == shape


def test_memory_is_that_of_the_dimensions(monkeypatch):
    """No array of features x features, and no float64 copy of the matrix, is ever made."""
    largest = 0
    monkeypatch.setattr(feature_capacity, "CHUNK_VALUES", 4096)
    rows = matrix(2000, 16).bfloat16()

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.dtype == torch.float64 and out.dim() == 2:
                largest = max(largest, out.numel())
            return out

    with Watch():
        found = FeatureCapacity.measure(rows)
    assert 256 <= largest <= 4096
    np.testing.assert_allclose(found.capacities, closed_form(rows), rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_unit_and_format_do_not_matter(scale):
    rows = matrix(200, 10)
    known = direct(rows)
    found = FeatureCapacity.measure(rows * scale)
    np.testing.assert_allclose(found.capacities, known, rtol=1e-5)
    for dtype, error in ((torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float64, 1e-6)):
        short = FeatureCapacity.measure(rows.to(dtype))
        np.testing.assert_allclose(short.capacities, known, rtol=error)
        np.testing.assert_allclose(short.capacities, direct(rows.to(dtype).double()), rtol=1e-9)


def test_a_faint_feature_keeps_its_own_dimension():
    """Through the moment matrix its interference would be rounding of the large features'."""
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0]
    rows = np.zeros((40, 8))
    rows[:39, :7] = 1e3 * np.random.default_rng(1).standard_normal((39, 7))
    rows[39, 7] = 1e-7
    found = FeatureCapacity.measure(rows @ turn)
    assert found.capacities[39] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("length", [1e-3, 1e-4, 1e-5, 1e-6])
def test_how_faint_a_feature_is_costs_no_digits(length):
    """From just above what the moment matrix resolves to far below, beside 39 of length 3,000."""
    rows = np.zeros((40, 8))
    rows[:39, :7] = 1e3 * np.random.default_rng(1).standard_normal((39, 7))
    rows[39, 7] = 1e3 * length
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0]
    assert FeatureCapacity.measure(rows @ turn).capacities[39] == pytest.approx(1, abs=2e-8)


def test_random_directions_have_the_value_said():
    found = FeatureCapacity.measure(nn.functional.normalize(matrix(4000, 64), dim=1))
    assert found.mean == pytest.approx(found.random, rel=0.01)
    assert found.random == pytest.approx(64 / 4063)
    absent = FeatureCapacity.measure(np.vstack([matrix(40, 5), np.zeros((10, 5))]))
    assert (absent.features, absent.zero) == (50, 10)
    assert absent.random == pytest.approx(5 / 44)  # features that are not there interfere with none


def test_blocks_of_a_known_geometry():
    rows = np.zeros((10, 6))
    rows[0, 0] = 1.0
    rows[1:4, 1:3] = polytope("triangle")
    rows[4:9, 3:5] = 2 * polytope("pentagon")
    found = FeatureCapacity.measure(rows, blocks=True)
    sizes = [(len(b.features), b.dimension) for b in found.blocks.blocks]
    assert sizes == [(5, 2), (3, 2), (1, 1)]
    assert found.blocks.ignored == (9,)
    assert found.blocks.block_semi_orthogonal
    for block in found.blocks.blocks:
        own = found.capacities[list(block.features)].sum()
        assert own == pytest.approx(block.dimension, abs=1e-9)
    assert found.scalars()["blocks"] == 3
    loose = FeatureCapacity.measure(rows + 0.05 * matrix(10, 6).numpy(), blocks=True)
    assert not loose.scalars()["block_semi_orthogonal"]
    assert FeatureCapacity.measure(rows).scalars()["blocks"] is None


def test_optimal_embedding_uses_all_its_dimensions():
    rows = optimal_embedding(np.linspace(1, 0.3, 12), 20.0, 5)
    found = FeatureCapacity.measure(rows, blocks=True)
    assert found.total == pytest.approx(5, abs=1e-9)
    assert found.used == pytest.approx(1, abs=1e-9)
    assert found.blocks.block_semi_orthogonal


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.zeros((3, 2)), "zero everywhere"),
        (np.array([[1.0, np.nan]]), "NaN or infinite"),
        (torch.full((2, 2), torch.inf), "NaN or infinite"),
        (np.ones((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (np.ones((0, 2)), r"shape \(0, 2\)"),
        (np.ones((2, 2), dtype=complex), "complex"),
        ([["a"]], "no matrix of numbers"),
    ],
)
def test_what_is_no_embedding_is_refused(value, said):
    with pytest.raises(DataError, match=said):
        FeatureCapacity.measure(value)


def test_sides_and_sizes_are_checked():
    with pytest.raises(DataError, match="'rows' or 'columns'"):
        FeatureCapacity.measure(np.eye(2), features="inputs")
    with pytest.raises(DataError, match="5000 features and blocks"):
        FeatureCapacity.measure(np.ones((5000, 2)), blocks=True)
    with pytest.raises(DataError, match="'sorted' or 'histogram'"):
        FeatureCapacity.measure(np.eye(2)).plot(kind="pie")


@pytest.mark.parametrize("blocks", [False, True])
def test_json_round_trip_and_plots(blocks):
    found = FeatureCapacity.measure(matrix(30, 5), blocks=blocks, tolerance=0.05, name="W")
    again = FeatureCapacity.from_dict(json.loads(json.dumps(found.to_dict())))
    np.testing.assert_array_equal(again.capacities, found.capacities)
    assert again.blocks == found.blocks
    assert again.scalars() == found.scalars()
    line = found.plot().get_lines()[0]
    assert line.get_ydata().tolist() == sorted(found.capacities.tolist(), reverse=True)
    assert found.plot(kind="histogram").get_xlabel() == "capacity"


# -- weights of a model ----------------------------------------------------------------------------
