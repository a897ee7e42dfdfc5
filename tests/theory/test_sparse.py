"""Sparse inputs and power-law spectra against enumeration, sums and an independent entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polycode_plugins import theory
from polycode_plugins.errors import DataError

repeatable = settings(deadline=None, derandomize=True)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.93, 1.0])
def test_sparse_entropy_is_that_of_the_enumerated_distribution(sparsity):
    rng = np.random.default_rng(0)
    active = rng.dirichlet(np.ones(50))
    element_bits = -(active * np.log2(active)).sum()
    whole = np.append((1 - sparsity) * active, sparsity)
    whole = whole[whole > 0]
    expected = -(whole * np.log2(whole)).sum()
    assert theory.sparse_entropy(7, sparsity, element_bits) == pytest.approx(
        7 * expected, rel=1e-12
    )
    assert theory.dimensions_per_feature(sparsity, element_bits) == pytest.approx(
        expected / element_bits, rel=1e-12
    )


def test_the_published_last_line_has_the_opposite_sign():
    corrected = theory.sparse_entropy(10, 0.3, 8.0)
    published = theory.sparse_entropy(10, 0.3, 8.0, mode="as_published")
    assert corrected - published == pytest.approx(2 * 10 * 0.7 * 8.0, rel=1e-14)
    assert published < 0


def test_dimensions_per_feature_broadcasts_and_returns_floats_for_numbers():
    assert isinstance(theory.dimensions_per_feature(0.5, 32), float)
    assert theory.dimensions_per_feature(0.5, 32) == 0.5 + 1 / 32
    table = theory.dimensions_per_feature([0.0, 0.5, 1.0], [[1.0], [4.0]])
    np.testing.assert_allclose(table, [[1, 1.5, 0], [1, 0.75, 0]], atol=1e-15)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: theory.sparse_entropy(0, 0.5, 1), "features must be at least 1"),
        (lambda: theory.sparse_entropy(2.5, 0.5, 1), "whole number"),
        (lambda: theory.sparse_entropy(2, 1.5, 1), "sparsity must be >= 0 and <= 1, not 1.5"),
        (lambda: theory.sparse_entropy(2, [0.5, 0.1], 1), "a single number"),
        (lambda: theory.sparse_entropy(2, 0.5, 1, mode="published"), "did you mean 'as_published'"),
        (lambda: theory.dimensions_per_feature(0.5, 0), "element_bits must be > 0"),
        (lambda: theory.dimensions_per_feature(1.5, 1), "sparsity must be >= 0 and <= 1"),
        (lambda: theory.dimensions_per_feature(-0.1, 1), "sparsity must be >= 0 and <= 1"),
        (lambda: theory.dimensions_per_feature([0.5, math.nan], 1), "NaN"),
        (lambda: theory.dimensions_per_feature("half", 1), "real numbers"),
        (lambda: theory.dimensions_per_feature([], 1), "empty"),
        (lambda: theory.power_law_entropy(10, -1, 1), "bits must be >= 0"),
        (lambda: theory.power_law_entropy(10, 1, -1), "exponent must be >= 0"),
        (lambda: theory.power_law_action(10, 1.0, mode="as_published"), "diverges"),
    ],
)
def test_arguments_outside_the_domain_are_refused(call, says):
    with pytest.raises(DataError, match=says):
        call()


def test_power_law_entropy_hits_the_known_numbers():
    assert round(theory.power_law_entropy(1000, 32, 1.0)) == 27735
    assert round(theory.power_law_entropy(1000, 32, 1.0, mode="as_published")) == 23477


@repeatable
@given(
    width=st.integers(1, 3000),
    bits=st.floats(0, 64),
    exponent=st.floats(0, 5),
)
def test_power_law_entropy_is_the_sum_over_components(width, bits, exponent):
    each = bits - exponent / 2 * np.log2(np.arange(1, width + 1))
    expected = np.maximum(each, 0).sum()
    assert theory.power_law_entropy(width, bits, exponent) == pytest.approx(
        expected, rel=1e-10, abs=1e-8
    )


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_the_corrected_loss_is_that_of_gaussians_of_these_variances(exponent):
    # An independent route: the entropy of quantised Gaussians, flat against power law.
    width = 300
    ranks = np.arange(1, width + 1.0)
    step = 2.0**-24
    loss = theory.gaussian_entropy(np.ones(width), step) - theory.gaussian_entropy(
        ranks**-exponent, step
    )
    claimed = 64 * width - theory.power_law_entropy(width, 64, exponent)
    assert claimed == pytest.approx(loss, rel=1e-10)
    published = 64 * width - theory.power_law_entropy(width, 64, exponent, mode="as_published")
    assert published == pytest.approx(2 * loss, rel=0.01)


def test_power_law_action_sums_what_zeta_sums_to_infinity():
    ranks = np.arange(1, 513.0)
    assert theory.power_law_action(512, 0.7) == pytest.approx(
        3 / 1024 * (ranks**-0.7).sum(), rel=1e-13
    )
    published = theory.power_law_action(512, 2.0, mode="as_published")
    assert published == pytest.approx(math.pi**2 / 12, rel=1e-13)
    # Undone the missing k/m, the finite sum approaches it.
    finite = theory.power_law_action(10**6, 2.0) * 10**6 / 3
    assert finite == pytest.approx(published, rel=1e-6)
    moments = theory.action_moments(ranks**-0.7, dimensions=2)
    assert theory.power_law_action(512, 0.7, dimensions=2) == pytest.approx(
        moments.expected, rel=1e-13
    )
