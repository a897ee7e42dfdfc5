"""Entropy of the code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gaussian_codes import power_law

from polycode_plugins.metrics.capacity.code_entropy import Code, entropy_of_rows
from polycode_plugins.metrics.spectrum.rows.correlation import RowCorrelation
from polycode_plugins.theory import (
    gaussian_entropy,
    gaussian_information,
)


def test_correction_removes_the_bias_and_the_interval_covers():
    width, samples = 30, 90
    variances = power_law(width, 0.8)
    step = 0.1 * np.sqrt(variances.mean())
    flat = gaussian_entropy(np.full(width, variances.mean()), step)
    truth = flat - gaussian_entropy(variances, step)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        sample = np.cov(rng.standard_normal((samples, width)) * np.sqrt(variances), rowvar=False)
        code = Code(np.linalg.eigvalsh(sample)[::-1], width, samples)
        found.append(code.entropy(0.1 * code.typical, np.diag(sample), relative=True))
    # Uncorrected, d^2 / 4n nats and more pass for redundancy. The correction leaves only the
    # sampling error, of 0.9 bits / sqrt(200) in the mean.
    assert np.mean([e.flat - e.naive for e in found]) - truth > 3.5
    assert np.mean([e.flat - e.bits for e in found]) == pytest.approx(truth, abs=0.15)
    covered = np.mean([e.interval[0] <= truth <= e.interval[1] for e in found])
    assert 0.9 <= covered <= 0.99


def test_the_entropy_of_units_is_unbiased_where_noise_hides_a_part_of_their_variance():
    """Planted: variances 5 times that of the noise of reading, estimated from 60 samples."""
    width, samples, step = 40, 60, 1.0
    variances = np.full(width, 5 / 12)
    rng = np.random.default_rng(0)
    drawn = rng.chisquare(samples - 1, size=(3000, width)) / (samples - 1) * variances
    code = Code(variances, width, samples)
    units = np.mean([code.entropy(step, sample, relative=False).units for sample in drawn])
    truth = gaussian_entropy(variances, step)
    naive = np.mean([gaussian_entropy(sample, step) for sample in drawn])
    assert naive == pytest.approx(truth - 0.37, abs=0.03)
    # A tenth is left: narrow units have less than the information and a quarter of a bit.
    assert units == pytest.approx(truth, abs=0.06)


@pytest.mark.parametrize("relative", [True, False])
def test_the_information_is_unbiased_whether_the_noise_is_taken_or_given(relative):
    width, samples = 30, 90
    variances = power_law(width, 0.8)
    noise = variances.mean() / 20
    rng = np.random.default_rng(0)
    found, naive = [], []
    for _ in range(300):
        sample = np.cov(rng.standard_normal((samples, width)) * np.sqrt(variances), rowvar=False)
        code = Code(np.linalg.eigvalsh(sample)[::-1], width, samples)
        taken = code.typical**2 / 20 if relative else noise
        found.append(code.information(taken, relative=relative))
        naive.append(gaussian_information(code.eigenvalues, taken))
    truth = gaussian_information(variances, noise)
    error = np.std(found) / np.sqrt(300)
    assert np.mean(found) == pytest.approx(truth, abs=4 * error)
    assert abs(np.mean(naive) - truth) > 20 * error


def test_the_interval_knows_that_samples_are_worth_less_in_strong_directions():
    width, documents, length, step = 20, 8, 150, 0.1
    lag = np.linspace(0.8, 0.0, width)
    rows = RowCorrelation(
        knots=tuple(np.arange(1.0, width + 1)), lag=tuple(lag), common=(0.0,) * width
    )
    scale = np.arange(1.0, width + 1) ** -0.5
    rng = np.random.default_rng(0)
    found, halves, plain = [], [], []
    for _ in range(300):
        noise = rng.standard_normal((documents, length, width))
        code = noise.copy()
        for t in range(1, length):
            code[:, t] = lag * code[:, t - 1] + np.sqrt(1 - lag**2) * noise[:, t]
        sample = np.cov(code.reshape(-1, width).T * scale[:, None])
        values = np.linalg.eigvalsh(sample)[::-1]
        asked = (step * np.sqrt(values.sum() / width), sample.diagonal())
        entropy = entropy_of_rows(values, width, len(code) * length, rows, *asked, relative=True)
        found.append(entropy.flat - entropy.bits)
        halves.append((entropy.interval[1] - entropy.interval[0]) / 2)
        square = rows.mean_square(np.ones(width))
        alike = Code(values, width, len(code) * length / square).entropy(*asked, relative=True)
        plain.append((alike.interval[1] - alike.interval[0]) / 2)
    assert np.mean(halves) / 1.96 == pytest.approx(np.std(found), rel=0.15)
    assert np.mean(plain) / 1.96 < 0.8 * np.std(found)  # as if they were worth the same in all


def test_what_is_doubtful_of_the_rows_is_part_of_the_interval():
    values, variances = np.arange(1.0, 21) ** -1.0, np.full(20, 0.2)
    rows = RowCorrelation(knots=(1.0,), lag=(0.5,), common=(0.0,))
    told = (0.1, variances)
    known = entropy_of_rows(values, 20, 900, rows, *told, relative=False)
    doubted = replace(rows, doubts=((0.1, 0.0, 0.0, 0.0),))
    wide = entropy_of_rows(values, 20, 900, doubted, *told, relative=False)
    other = entropy_of_rows(values, 20, 900, doubted.doubted[0], *told, relative=False)
    assert wide.bits == known.bits
    halves = [(one.interval[1] - one.interval[0]) / 2 for one in (known, wide)]
    assert halves[1] == pytest.approx(np.hypot(halves[0], 1.96 * (other.bits - known.bits)))
    assert other.bits != known.bits
