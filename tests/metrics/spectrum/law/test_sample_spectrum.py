"""What sample spectrum a population leads one to expect, against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from gaussian_spectra import eigenvalues, power_law, spectra
from scipy.signal import lfilter

from polycode_plugins.errors import DataError
from polycode_plugins.metrics.spectrum.law.power_law import fit_power_law
from polycode_plugins.metrics.spectrum.law.sample_spectrum import sample_spectrum
from polycode_plugins.metrics.spectrum.rows.correlation import RowCorrelation


@pytest.mark.parametrize(("n", "ranks"), [(60, [1, 3, 10, 30, 50]), (130, [1, 5, 30, 60, 90])])
def test_expected_eigenvalues_and_their_variances_are_those_of_simulation(n, ranks):
    logs = np.log(np.array(spectra(100, 1.0, n, 300))[:, np.array(ranks) - 1])
    expected = sample_spectrum(power_law(100, 1.0), n - 1, np.array(ranks))
    assert np.allclose(np.log(expected.values), logs.mean(axis=0), atol=3 / n)
    variances = expected.covariance(np.ones(len(ranks))).diagonal()
    assert np.allclose(variances / logs.var(axis=0), 1, atol=0.35)


def test_the_response_is_the_derivative():
    population, ranks = power_law(50, 0.8), np.array([1, 4, 20, 45])
    base = sample_spectrum(population, 70, ranks)
    assert np.allclose(base.response.sum(axis=1), 1)
    for j in (0, 10, 49):
        moved = population.copy()
        moved[j] *= 1.001
        change = np.log(sample_spectrum(moved, 70, ranks).limit / base.limit) / np.log(1.001)
        assert np.allclose(change, base.response[:, j], atol=2e-3)


def test_correlated_rows_respond_as_derived():
    population, ranks = power_law(50, 0.8), np.array([1, 4, 20, 40])
    rows = RowCorrelation.from_moments(1.6, 3.3)
    base = sample_spectrum(population, 90, ranks, rows=rows)
    for j in (0, 10, 45):
        moved = population.copy()
        moved[j] *= 1.001
        change = sample_spectrum(moved, 90, ranks, rows=rows).limit / base.limit
        assert np.allclose(np.log(change) / np.log(1.001), base.response[:, j], atol=2e-3)


def test_a_small_correlation_is_next_to_none():
    population, ranks = power_law(80, 1.0), np.array([1, 5, 20, 70])
    cells = np.array([1.0, 2.0, 5.0, 5.0])
    none = sample_spectrum(population, 120, ranks)
    for rows in (
        RowCorrelation.from_moments(1 + 1e-6, 1 + 3e-6),
        RowCorrelation.from_moments(1 + 1e-6, (1 + 1e-6) ** 2),
    ):
        little = sample_spectrum(population, 120, ranks, rows=rows)
        assert np.allclose(little.values, none.values, rtol=1e-4)
        assert np.allclose(little.covariance(cells), none.covariance(cells), rtol=1e-3, atol=1e-9)


def autoregression(n: int, width: int, lag: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng([seed, n]).standard_normal((n + 60, width))
    return lfilter([np.sqrt(1 - lag**2)], [1, -lag], noise, axis=0)[60:]


def of_autoregression(lag: float) -> RowCorrelation:
    square = (1 + lag**2) / (1 - lag**2)
    return RowCorrelation.from_moments(square, (3 * square**2 - 1) / 2)


@pytest.mark.parametrize(("n", "lag"), [(150, 0.5), (400, 0.5), (400, 0.8)])
def test_the_spectrum_of_an_autoregression_is_expected_where_its_effective_number_fails(n, lag):
    width = 100
    population, rows = power_law(width, 1.0), of_autoregression(lag)
    ranks = np.array([2, 8, 25, 60])
    logs = np.mean(
        [
            np.log(eigenvalues(autoregression(n, width, lag, s) * np.sqrt(population))[ranks - 1])
            for s in range(100)
        ],
        axis=0,
    )
    known = np.log(sample_spectrum(population, n - 1, ranks, rows=rows).values)
    number = np.log(sample_spectrum(population, (n - 1) / rows.square, ranks).values)
    assert np.abs(known - logs).max() < 4 / (n / rows.square) + 0.01
    assert np.abs(number - logs)[2:].max() > 2 * np.abs(known - logs).max()


def test_repeated_rows_are_their_number():
    population, ranks = power_law(100, 1.0), np.array([1, 5, 20, 45])
    four = sample_spectrum(population, 400, ranks, rows=RowCorrelation.from_moments(4, 16))
    assert np.array_equal(four.values, sample_spectrum(population, 100, ranks).values)


def test_the_exponent_of_correlated_rows():
    width, n, lag = 300, 600, 0.5
    root, rows = np.sqrt(power_law(width, 1.0)), of_autoregression(lag)
    samples = [eigenvalues(autoregression(n, width, lag, s) * root) for s in range(15)]
    known = [fit_power_law(e, n, width=width, rows=rows) for e in samples]
    errors = np.array([f.exponent - 1 for f in known])
    assert abs(errors.mean()) < 0.01
    assert np.mean([f.interval[0] <= 1 <= f.interval[1] for f in known]) > 0.8
    assert np.mean([f.broken for f in known]) < 0.3
    unknown = np.mean([fit_power_law(e, n, width=width).exponent - 1 for e in samples])
    number = np.mean([fit_power_law(e, n / rows.square, width=width).exponent for e in samples])
    assert min(abs(unknown), abs(number - 1)) > 3 * abs(errors.mean())


def test_ranks_that_no_sample_has_are_refused():
    with pytest.raises(DataError, match="narrow `ranks`"):
        sample_spectrum(power_law(50, 1.0), 20, np.array([30]))


@pytest.mark.parametrize(("dof", "first", "last"), [(150.0, 60, 79), (400.0, 101, 140)])
def test_the_variance_of_a_bin_is_that_of_its_ranks_one_by_one(dof, first, last):
    law = power_law(200, 1.0)
    ranks = np.arange(first, last + 1)
    each = sample_spectrum(law, dof, ranks).covariance(np.ones(len(ranks)))
    middle = sample_spectrum(law, dof, ranks[[len(ranks) // 2]])
    whole = middle.covariance(np.array([float(len(ranks))]))[0, 0]
    assert whole == pytest.approx(each.mean(), rel=0.05)
