"""Feature capacity and the quadratic toy model against brute force and direct optimisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize

from polycode_plugins import theory
from polycode_plugins.errors import DataError

repeatable = settings(deadline=None, derandomize=True)


def random_embedding(features, dimensions, seed=0):
    return np.random.default_rng(seed).standard_normal((features, dimensions))


def optimise(importance, kurtosis, dimensions, seeds):
    """The best embedding that a quasi-Newton method finds, without any of the theory."""
    shape = (len(importance), dimensions)
    weight = np.full((len(importance),) * 2, 2.0)
    np.fill_diagonal(weight, kurtosis - 1)

    def value_and_gradient(flat):
        w = flat.reshape(shape)
        error = w @ w.T - np.diag(importance)
        return (weight * error**2).sum(), 4 * ((weight * error) @ w).ravel()

    options = {"maxiter": 20_000, "maxfun": 50_000, "ftol": 0.0, "gtol": 1e-11}
    runs = [
        minimize(
            value_and_gradient,
            0.5 * np.random.default_rng(seed).standard_normal(shape).ravel(),
            jac=True,
            method="L-BFGS-B",
            options=options,
        )
        for seed in seeds
    ]
    return min(runs, key=lambda run: run.fun).x.reshape(shape)


@pytest.mark.parametrize(("features", "dimensions"), [(7, 3), (3, 7), (20, 20)])
def test_capacity_is_elhages_dimensionality(features, dimensions):
    w = random_embedding(features, dimensions)
    unit = w / np.linalg.norm(w, axis=1, keepdims=True)
    for i, c in enumerate(theory.feature_capacity(w)):
        brute = (w[i] @ w[i]) ** 2 / sum((w[i] @ w[j]) ** 2 for j in range(features))
        elhage = (w[i] @ w[i]) / sum((unit[i] @ w[j]) ** 2 for j in range(features))
        assert c == pytest.approx(brute, rel=1e-12)
        assert c == pytest.approx(elhage, rel=1e-12)


def test_capacity_is_the_squared_correlation_of_a_feature_with_its_readout():
    rng = np.random.default_rng(0)
    w = random_embedding(6, 3) * np.array([[1], [1], [0.3], [2], [1], [0.1]])
    x = rng.laplace(size=(400_000, 6))
    readout = x @ w @ w.T
    correlation = [np.corrcoef(x[:, i], readout[:, i])[0, 1] for i in range(6)]
    np.testing.assert_allclose(np.square(correlation), theory.feature_capacity(w), atol=0.005)


@pytest.mark.parametrize(
    ("name", "capacity"),
    [
        ("pair", 1 / 2),
        ("triangle", 2 / 3),
        ("tetrahedron", 3 / 4),
        ("pentagon", 2 / 5),
        ("square antiprism", 3 / 8),
    ],
)
def test_polytopes_have_the_sticky_capacities(name, capacity):
    vertices = theory.polytope(name)
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 1, atol=1e-15)
    np.testing.assert_allclose(theory.feature_capacity(vertices), capacity, rtol=0, atol=1e-12)


@repeatable
@given(
    features=st.integers(1, 15),
    dimensions=st.integers(1, 8),
    seed=st.integers(0, 1000),
    decades=st.floats(-8, 8),
)
def test_capacity_stays_in_its_range_and_sums_to_at_most_the_rank(
    features, dimensions, seed, decades
):
    w = (
        random_embedding(features, dimensions, seed)
        * 10 ** np.linspace(0, decades, features)[:, None]
    )
    c = theory.feature_capacity(w)
    assert c.min() >= 0
    assert c.max() <= 1
    assert c.sum() <= min(features, dimensions) + 1e-9
    turn, _ = np.linalg.qr(random_embedding(dimensions, dimensions, seed + 1))
    np.testing.assert_allclose(theory.feature_capacity(1e-120 * w @ turn), c, rtol=1e-6, atol=1e-9)


def test_capacity_of_nothing_of_orthogonal_features_and_of_tensors():
    np.testing.assert_array_equal(theory.feature_capacity([[0, 0], [3, 0], [0, 1e-9]]), [0, 1, 1])
    np.testing.assert_array_equal(theory.feature_capacity(np.zeros((3, 2))), 0)
    w = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.bfloat16, requires_grad=True)
    np.testing.assert_allclose(theory.feature_capacity(w), [1 / 2, 4 / 5], rtol=1e-14)


@pytest.mark.parametrize("kurtosis", [1.8, 3.0, 9.0])
def test_quadratic_loss_is_the_variance_of_the_models_error(kurtosis):
    rng = np.random.default_rng(0)
    n = 1_000_000
    w, v = 0.7 * random_embedding(4, 2), np.array([1.0, 0.7, 0.5, 0.2])
    if kurtosis == 1.8:
        x = rng.uniform(-np.sqrt(3), np.sqrt(3), (n, 4))
    else:  # +-sqrt(k) with probability 1/k in all, else 0
        x = rng.choice([-1, 1], (n, 4)) * np.sqrt(kurtosis) * (rng.random((n, 4)) < 1 / kurtosis)
    error = ((x @ w) ** 2).sum(1) - x**2 @ v
    assert theory.quadratic_loss(w, v, kurtosis) == pytest.approx(error.var(), rel=0.01)


def test_the_documented_gradient_is_the_gradient():
    w, v, k = random_embedding(5, 2), np.arange(1, 6.0), 7.0
    weight = np.full((5, 5), 2.0)
    np.fill_diagonal(weight, k - 1)
    gradient = 4 * (weight * (w @ w.T - np.diag(v))) @ w
    numeric = approx_fprime(
        w.ravel(), lambda flat: theory.quadratic_loss(flat.reshape(5, 2), v, k), 1e-7
    )
    np.testing.assert_allclose(gradient.ravel(), numeric, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("features", "dimensions", "kurtosis"),
    [(2, 1, 4.0), (4, 2, 3.5), (6, 3, 5.0), (8, 3, 20.0), (10, 4, 8.0), (5, 2, 2.0), (5, 3, 1.5)],
)
def test_allocation_is_what_direct_optimisation_finds(features, dimensions, kurtosis):
    v = np.random.default_rng(features).uniform(0.1, 1, features)
    w = optimise(v, kurtosis, dimensions, seeds=range(8))
    capacity = theory.optimal_allocation(v, kurtosis, dimensions)
    found = theory.quadratic_loss(w, v, kurtosis)
    assert theory.allocation_loss(capacity, v, kurtosis).sum() == pytest.approx(found, abs=1e-9)
    np.testing.assert_allclose(theory.feature_capacity(w), capacity, rtol=0, atol=1e-6)


def test_at_kurtosis_three_only_the_loss_is_determined():
    v = np.array([1.0, 0.6, 0.6, 0.6])
    capacity = theory.optimal_allocation(v, 3.0, 2)
    np.testing.assert_array_equal(capacity, [1, 1, 0, 0])
    shared = theory.allocation_loss([1, 1 / 3, 1 / 3, 1 / 3], v, 3.0).sum()
    assert theory.allocation_loss(capacity, v, 3.0).sum() == pytest.approx(shared, rel=1e-14)
    found = theory.quadratic_loss(optimise(v, 3.0, 2, seeds=range(8)), v, 3.0)
    assert found == pytest.approx(shared, abs=1e-9)


@repeatable
@given(a=st.floats(0.1, 10), b=st.floats(0.1, 10), off=st.floats(0.01, 0.9))
def test_two_features_in_one_dimension_share_beyond_the_boundary(a, b, off):
    boundary = 1 + 2 * max(a / b, b / a)
    below = theory.optimal_allocation([a, b], 1 + (boundary - 1) * (1 - off), 1)
    above = theory.optimal_allocation([a, b], 1 + (boundary - 1) * (1 + off), 1)
    assert sorted(below) == [0, 1]
    assert 0 < above.min() <= above.max() < 1
    assert above.sum() == pytest.approx(1, abs=1e-12)


def test_the_phase_boundary_is_where_direct_optimisation_changes():
    v = np.array([1.0, 0.5])
    for kurtosis, shares in [(4.5, False), (4.9, False), (5.1, True), (6.0, True)]:
        w = optimise(v, kurtosis, 1, seeds=range(4))
        assert (abs(w).min() > 1e-3) == shares


@repeatable
@given(
    features=st.integers(1, 40),
    dimensions=st.integers(1, 12),
    kurtosis=st.one_of(st.floats(1.01, 3), st.floats(3, 3.001), st.floats(3, 1000)),
    seed=st.integers(0, 10_000),
)
def test_allocation_is_feasible_optimal_and_realised(features, dimensions, kurtosis, seed):
    rng = np.random.default_rng(seed)
    v = rng.exponential(size=features) * (rng.random(features) < 0.9)
    c = theory.optimal_allocation(v, kurtosis, dimensions)
    total = theory.allocation_loss(c, v, kurtosis).sum()
    assert c.min() >= 0
    assert c.max() <= 1
    assert c.sum() == pytest.approx(min(dimensions, (v > 0).sum()), abs=1e-9)
    assert (c[v == 0] == 0).all()
    assert (np.diff(c[np.argsort(v)]) >= -1e-9).all()  # never less for the more important
    scale = 1e-9 * (1 + total)
    assert theory.quadratic_loss(
        theory.optimal_embedding(v, kurtosis, dimensions), v, kurtosis
    ) == pytest.approx(total, abs=scale)
    # No embedding beats the bound at its own capacities, nor that the optimum.
    w = rng.standard_normal((features, dimensions)) * np.sqrt(v)[:, None]
    own = theory.allocation_loss(theory.feature_capacity(w), v, kurtosis).sum()
    assert total <= own + scale
    assert own <= theory.quadratic_loss(w, v, kurtosis) + scale


def test_allocation_at_its_edges():
    np.testing.assert_array_equal(theory.optimal_allocation([1, 2, 0], 5.0, 3), [1, 1, 0])
    np.testing.assert_array_equal(theory.optimal_allocation([0.0, 0.0], 5.0, 1), [0, 0])
    np.testing.assert_allclose(theory.optimal_allocation(np.ones(8), 5.0, 3), 3 / 8, rtol=1e-14)
    np.testing.assert_allclose(theory.optimal_allocation(np.ones(8), 3 + 1e-12, 3), 3 / 8)
    tiny = theory.optimal_allocation(np.array([1, 0.9, 0.8]) * 1e-250, 9.0, 1)
    np.testing.assert_allclose(tiny, theory.optimal_allocation([1, 0.9, 0.8], 9.0, 1), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: theory.feature_capacity([1.0, 2.0]), "embedding must be an array of 2 axes"),
        (lambda: theory.optimal_allocation([1.0], 1.0, 1), "kurtosis must be > 1"),
        (lambda: theory.optimal_allocation([-1.0], 4.0, 1), "importance must be >= 0"),
        (lambda: theory.optimal_allocation([1.0], 4.0, 0), "dimensions must be at least 1"),
        (lambda: theory.optimal_allocation([1.0], 4.0, 1.5), "whole number"),
        (lambda: theory.quadratic_loss(np.ones((3, 2)), [1.0], 4.0), "make them agree"),
        (lambda: theory.allocation_loss([1.0, 0.5], [1.0], 4.0), "make them agree"),
        (lambda: theory.allocation_loss([1.5], [1.0], 4.0), "capacity must be >= 0 and <= 1"),
        (lambda: theory.polytope("cube"), "name must be one of pair"),
    ],
)
def test_arguments_outside_the_domain_are_refused(call, says):
    with pytest.raises(DataError, match=says):
        call()
