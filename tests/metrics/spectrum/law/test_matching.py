"""The noise of binned eigenvalues: a covariance, whatever the approximation says."""

from __future__ import annotations

import numpy as np
import pytest

from polycode_plugins.metrics.spectrum.law.matching import LEAST, positive


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
