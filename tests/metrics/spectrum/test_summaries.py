"""Effective dimensions of planted spectra."""

from __future__ import annotations

import numpy as np
import pytest
from gaussian_spectra import power_law, spectra, spectrum

from polycode_plugins.errors import DataError
from polycode_plugins.metrics.spectrum.summaries import (
    effective_rank,
    explained_variance,
    participation_ratio,
)


@pytest.mark.parametrize("exponent", [0.5, 1.0])
@pytest.mark.parametrize("n", [60, 130, 1000])
def test_the_corrected_participation_ratio_is_the_population_s(exponent, n):
    population = power_law(100, exponent)
    true = population.sum() ** 2 / np.square(population).sum()
    found = [participation_ratio(e, n, width=100) for e in spectra(100, exponent, n, 200)]
    inverse = np.array([1 / f.corrected for f in found])
    error = inverse.std() / np.sqrt(len(found))
    assert abs(inverse.mean() * true - 1) < 3 * error * true + 1 / n
    # The formulas' E[1/naive] = 1/P + 1/Q + 1/PR has 1/n for the samples: naive is too low.
    naive = np.mean([1 / f.naive for f in found])
    assert naive == pytest.approx(1 / true + 1 / n, rel=0.05)


def test_equal_directions_count_fully_and_one_counts_once():
    assert participation_ratio(np.ones(50), 10**6).corrected == pytest.approx(50, rel=1e-3)
    assert participation_ratio([3.0, 0, 0, 0], 100).corrected == pytest.approx(1.0)
    assert participation_ratio([3.0], 100, width=1).corrected == 1.0


def test_white_rows_have_the_width_as_participation_ratio_even_when_few():
    found = [
        participation_ratio(spectrum(np.ones(80), 40, s), 40, width=80).corrected for s in range(20)
    ]
    assert np.mean(found) == pytest.approx(80, rel=0.12)
    assert max(found) <= 80


def test_few_samples_without_a_width_bound_it_only_from_below():
    with pytest.raises(DataError, match="pass `width`"):
        participation_ratio(np.ones(9), 10)


def test_effective_rank_is_that_of_singular_values():
    assert effective_rank(np.ones(7)) == pytest.approx(7)
    assert effective_rank([4.0, 0, 0]) == pytest.approx(1)
    p = np.array([2.0, 1.0]) / 3  # singular values of eigenvalues 4 and 1
    assert effective_rank([4.0, 1.0]) == pytest.approx(np.exp(-np.sum(p * np.log(p))))
    assert effective_rank([4e-300, 1e-300]) == pytest.approx(effective_rank([4.0, 1.0]))


def test_explained_variance_ends_at_one():
    assert np.allclose(explained_variance([3.0, 1.0, 0.0]), [0.75, 1, 1])
    assert explained_variance(power_law(1000, 1.0) * 1e200)[-1] == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "non-empty"),
        ([[1.0]], "one non-empty list"),
        (["a"], "real numbers"),
        ([1.0, 2.0], "descending"),
        ([1.0, np.nan], "NaN"),
        ([0.0, 0.0], "all eigenvalues are zero"),
        ([1.0, -1e-3], "none below zero"),
    ],
)
def test_what_is_no_spectrum_is_one_clear_sentence(values, message):
    for call in (effective_rank, explained_variance, lambda v: participation_ratio(v, 10)):
        with pytest.raises(DataError, match=message):
            call(values)


@pytest.mark.parametrize("n", [2, np.nan, "many", None])
def test_the_number_of_samples_is_checked(n):
    with pytest.raises(DataError, match="n_samples"):
        participation_ratio([2.0, 1.0], n)
