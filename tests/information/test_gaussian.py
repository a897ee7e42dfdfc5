"""The Gaussian estimate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from polycode_plugins.information import (
    estimate_gaussian,
)
from polycode_plugins.information.gaussian import wishart_bias


def test_gaussian_estimate_is_unbiased_where_the_plug_in_is_not() -> None:
    n, p, q = 60, 4, 3
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        found.append(estimate_gaussian(rng.normal(size=(n, p)), rng.normal(size=(n, q))).nats)
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(300)
    bias = wishart_bias(p, q, n)
    assert bias == pytest.approx(p * q / (2 * n), rel=0.15)
    assert bias > 10 * np.std(found) / math.sqrt(300)  # the test could see it missing
