"""Information of samples."""

from __future__ import annotations

import numpy as np
import pytest

from polycode_plugins.metrics.mine.sample_information import log_determinant


def test_log_determinant_is_that_of_a_wishart_matrix():
    """E log det of a Wishart matrix has a closed form, d log 2/n + sum digamma((n - i) / 2)."""
    from scipy.special import digamma

    width, dof = 20, 60
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        rows = rng.standard_normal((dof, width))
        values = np.linalg.eigvalsh(rows.T @ rows / dof)[::-1]
        found.append(log_determinant(values, 1e-9, dof))
    naive = np.mean([f.naive for f in found]) + width * np.log(1e-9)
    known = digamma((dof - np.arange(width)) / 2).sum() + width * np.log(2 / dof)
    assert naive == pytest.approx(known, abs=0.2)
    assert np.mean([f.value for f in found]) + width * np.log(1e-9) == pytest.approx(0, abs=0.15)
    spread = np.var([f.value for f in found])
    assert np.mean([f.variance for f in found]) == pytest.approx(spread, rel=0.25)
