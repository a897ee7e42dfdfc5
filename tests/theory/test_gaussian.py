"""Entropy and capacity of measured spectra against direct sums, determinants and optimisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from polycode_plugins import theory
from polycode_plugins.errors import DataError

repeatable = settings(deadline=None, derandomize=True)

variances = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12)


@pytest.mark.parametrize("sigma", [0.01, 0.12, 0.3, 0.7, 1.0, 2.0, 7.99, 8.0, 8.01, 20.0])
def test_gaussian_entropy_is_that_of_the_rounded_variable(sigma):
    step = 0.37
    cells = np.arange(-300, 301)
    scaled = sigma * step
    tails = norm.sf((np.abs(cells) - 0.5) * step / scaled) - norm.sf(
        (np.abs(cells) + 0.5) * step / scaled
    )
    tails = tails[tails > 0]
    expected = -(tails * np.log2(tails)).sum()
    assert theory.gaussian_entropy([scaled**2], step) == pytest.approx(expected, rel=1e-11)


def test_gaussian_entropy_adds_components_and_counts_dead_ones_as_nothing():
    alone = [theory.gaussian_entropy([v], 0.1) for v in (4.0, 0.01, 0.0)]
    assert alone[2] == 0
    assert theory.gaussian_entropy([4.0, 0.01, 0.0], 0.1) == pytest.approx(sum(alone), rel=1e-14)
    assert theory.gaussian_entropy([1.0, 1e-200, -1e-9], 0.1) == theory.gaussian_entropy([1], 0.1)
    tensor = torch.tensor([4.0, 0.25], dtype=torch.bfloat16, requires_grad=True)
    assert theory.gaussian_entropy(tensor, 0.1) == theory.gaussian_entropy([4, 0.25], 0.1)


def test_gaussian_information_is_the_log_determinant():
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((6, 9))
    covariance = factor @ factor.T
    noise = 0.3
    _, logdet = np.linalg.slogdet(np.eye(6) + covariance / noise)
    eigenvalues = np.linalg.eigvalsh(covariance)
    assert theory.gaussian_information(eigenvalues, noise) == pytest.approx(
        logdet / (2 * np.log(2)), rel=1e-12
    )


@repeatable
@given(noise=variances, power=st.floats(0, 1e4))
def test_water_filling_spends_its_power_where_it_is_worth_most(noise, power):
    noise = np.array(noise)
    found = theory.gaussian_capacity(noise, power)
    assert found.allocation.min() >= 0
    assert found.allocation.sum() == pytest.approx(power, rel=1e-9, abs=1e-9)
    assert found.bits == pytest.approx(
        0.5 * np.log2(1 + found.allocation / noise).sum(), rel=1e-9, abs=1e-12
    )
    # Concave: no mixture with another split of the same power does better.
    for split in np.random.default_rng(0).dirichlet(np.ones(len(noise)), size=5):
        other = 0.5 * np.log2(1 + power * split / noise).sum()
        assert other <= found.bits + 1e-9 * (1 + found.bits)


def test_water_filling_by_hand():
    found = theory.gaussian_capacity([1.0, 4.0, 10.0], 5.0)
    np.testing.assert_allclose(found.allocation, [4, 1, 0], atol=1e-14)
    assert found.level == pytest.approx(5)
    assert found.bits == pytest.approx(0.5 * np.log2(5 * 1.25), rel=1e-14)
    assert theory.gaussian_capacity([2.0, 3.0], 0.0).bits == 0


def test_spreading_the_measured_power_evenly_is_the_most_isotropic_noise_allows():
    eigenvalues = np.arange(1, 65.0) ** -1.0
    capacity = theory.gaussian_capacity(np.full(64, 0.01), eigenvalues.sum())
    assert capacity.bits == pytest.approx(32 * np.log2(1 + eigenvalues.mean() / 0.01), rel=1e-12)
    assert capacity.bits > theory.gaussian_information(eigenvalues, 0.01)
    even = theory.gaussian_information(np.full(64, eigenvalues.mean()), 0.01)
    assert capacity.bits == pytest.approx(even, rel=1e-12)


@repeatable
@given(eigenvalues=variances, share=st.floats(1e-3, 1.5))
def test_reverse_water_filling_meets_its_distortion(eigenvalues, share):
    eigenvalues = np.array(eigenvalues)
    allowed = share * eigenvalues.sum()
    found = theory.rate_distortion(eigenvalues, allowed)
    error = found.allocation
    assert (error <= eigenvalues * (1 + 1e-12)).all()
    assert error.sum() == pytest.approx(min(allowed, eigenvalues.sum()), rel=1e-9)
    rate = 0.5 * np.log2(eigenvalues / error).sum()
    assert found.bits == pytest.approx(rate, rel=1e-9, abs=1e-9)
    # No other split of the distortion needs fewer bits.
    for weight in np.random.default_rng(0).random((5, len(error))):
        other = np.minimum(weight * eigenvalues, eigenvalues)
        other = other * min(1.0, error.sum() / other.sum())
        assert 0.5 * np.log2(eigenvalues / other).sum() >= found.bits - 1e-9


def test_reverse_water_filling_by_hand():
    found = theory.rate_distortion([16.0, 4.0, 1.0, 0.0], 5.0)
    np.testing.assert_allclose(found.allocation, [2, 2, 1, 0], atol=1e-14)
    assert found.bits == pytest.approx(0.5 * np.log2(8) + 0.5 * np.log2(2), rel=1e-14)
    assert theory.rate_distortion([1.0, 2.0], 3.0).bits == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: theory.gaussian_entropy([1.0], 0.0), "step must be > 0"),
        (lambda: theory.gaussian_entropy([1.0, -0.5], 1.0), "must not be negative"),
        (lambda: theory.gaussian_entropy(np.eye(2), 1.0), "1 axes"),
        (lambda: theory.gaussian_information([1.0], 0.0), "noise must be > 0"),
        (lambda: theory.gaussian_capacity([1.0, 0.0], 1.0), "noise must be > 0"),
        (lambda: theory.gaussian_capacity([1.0], -1.0), "power must be >= 0"),
        (lambda: theory.rate_distortion([1.0], 0.0), "distortion must be > 0"),
    ],
)
def test_arguments_outside_the_domain_are_refused(call, says):
    with pytest.raises(DataError, match=says):
        call()
