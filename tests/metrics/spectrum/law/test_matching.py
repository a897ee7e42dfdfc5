"""The noise of binned eigenvalues: a covariance, whatever the approximation says."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from gaussian_spectra import power_law

from polycode_plugins.metrics.spectrum.law.bins import bin_edges, binned
from polycode_plugins.metrics.spectrum.law.matching import (
    LEAST,
    Matched,
    match,
    positive,
)
from polycode_plugins.metrics.spectrum.law.sample_spectrum import sample_spectrum


def test_correlations_that_cannot_be_are_drawn_towards_0_and_variances_stay():
    deviations = np.array([1e-3, 2e-2, 5e-3, 1.0])
    correlation = np.eye(4)
    correlation[:3, :3] = -0.6 + 1.6 * np.eye(3)  # three numbers cannot all oppose each other so
    noise = correlation * np.outer(deviations, deviations)
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(noise)
    mended = positive(noise)
    assert mended.diagonal() == pytest.approx(deviations**2)
    left = mended / np.outer(deviations, deviations)
    assert np.linalg.eigvalsh(left)[0] == pytest.approx(LEAST)
    share = left[0, 1] / correlation[0, 1]
    assert left[1, 2] / correlation[1, 2] == pytest.approx(share)
    assert 0.5 < share < 1


def test_a_covariance_stays_as_it_is():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((5, 5))
    noise = root @ root.T
    assert positive(noise) is noise


@pytest.mark.parametrize(("first", "last", "bins"), [(1, 100, 24), (11, 500, 24), (7, 11, 24)])
def test_bins_cover_the_ranks_asked_for_and_no_others(first, last, bins):
    edges = bin_edges(first, last, bins)
    assert edges[0] == first
    assert edges[-1] == last + 1
    assert np.all(np.diff(edges) >= 1)
    assert len(edges) <= bins + 1


def test_a_law_in_bins_is_its_mean_logarithm_and_the_sum_beyond():
    values = power_law(100, 1.0)
    data = binned(values, 11, 60, 100)
    assert (data.first, data.last, data.tail) == (11, 60, True)
    for row, (a, b) in enumerate(pairwise(data.edges)):
        assert data.values[row] == pytest.approx(np.log(values[a - 1 : b - 1]).mean())
    assert data.values[-1] == pytest.approx(np.log(values[60:].sum()))
    assert data.cells.sum() == 100  # every rank belongs to one cell
    for begin, count, log in zip(data.begins, data.cells.astype(int), data.logs, strict=True):
        assert log == pytest.approx(np.log(values[begin - 1 : begin - 1 + count]).mean())


def expected(exponent: float, ranks: tuple[int, int], dof: float = 400.0) -> Matched:
    """The match of what a law of width 100 leads one to expect of a sample."""
    every = np.arange(1, 101)
    values = sample_spectrum(power_law(100, exponent), dof, every).values
    data = binned(values, *ranks, 100)
    found = match(data, 100, dof, 0.5)
    rows = slice(len(found.residuals))
    assert found.fitted + found.residuals == pytest.approx(data.values[rows])
    return found


@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.4])
def test_the_expected_sample_of_a_law_is_matched_by_it(exponent):
    whole, part = expected(exponent, (1, 100)), expected(exponent, (11, 60))
    assert whole.parameters[1] == pytest.approx(exponent, abs=2e-3)
    assert part.parameters[1:] == pytest.approx([exponent, exponent], abs=0.01)
    for found, parameters in ((whole, 2), (part, 3)):
        assert found.settled
        assert found.dispersion < 0.05  # nothing scatters but what bins and levels round
        assert found.freedom == len(found.residuals) - parameters
        assert found.squared == pytest.approx(exponent**2, abs=0.02)


def test_close_to_flat_the_square_is_estimated_evenly_to_either_side():
    """Planted: a sample as much flatter than that of a flat law as one of exponent .15 is not."""
    every = np.arange(1, 101)
    flat, falling = (
        np.log(sample_spectrum(power_law(100, exponent), 400.0, every).values)
        for exponent in (0.0, 0.15)
    )
    found = [
        match(binned(np.exp(logs), 1, 100, 100), 100, 400.0, 0.1)
        for logs in (falling, 2 * flat - falling)
    ]
    assert found[0].squared == pytest.approx(0.15**2, rel=0.05)
    assert found[1].squared == pytest.approx(-(0.15**2), rel=0.2)
    assert found[1].parameters[1] < 0.03
