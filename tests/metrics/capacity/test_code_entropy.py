"""Entropy of the code."""

from __future__ import annotations

import numpy as np
import pytest
from gaussian_codes import power_law

from polycode_plugins.metrics.capacity.code_entropy import Code
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
