"""Moments over every token: those of the definition, for rare units too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis

from polycode_plugins.explainers.records.moments import Moments


def test_the_moments_of_batches_are_those_of_all_tokens():
    rng = np.random.default_rng(0)
    values = rng.standard_t(6, size=(3, 40, 7)) * [[[1e-3]], [[1.0]], [[50.0]]]
    values += np.array([1000.0, 0.0, -3.0])[:, None, None] * [[[1e-3]], [[1.0]], [[50.0]]]
    values = values.astype(np.float32)
    mask = rng.random((40, 7)) < 0.7
    mask[:, 0] = True
    filled = np.where(mask, values, values[:, :, :1])  # as a pass fills what does not count
    moments = Moments(3, torch.device("cpu"))
    for part in (slice(0, 11), slice(11, 12), slice(12, 40)):
        moments.count(torch.from_numpy(mask[part]))
        for first, last in ((0, 2), (2, 3)):
            moments.update(
                first,
                torch.from_numpy(filled[first:last, part].copy()),
                torch.from_numpy(mask[part]),
            )
    for unit in range(3):
        of, true = moments.of(unit, -1), values[unit][mask].astype(np.float64)
        assert of.n_tokens == mask.sum()
        assert of.mean == pytest.approx(-true.mean(), rel=1e-5)
        assert of.sd == pytest.approx(true.std(), rel=1e-4)
        assert of.kurtosis == pytest.approx(kurtosis(true, fisher=False), rel=1e-4)


def test_a_constant_unit_has_no_kurtosis_and_a_rare_one_has():
    values = torch.zeros(2, 5000, 16)
    values[0] += 0.1
    values[1, 4321, 3] = 2.0
    moments = Moments(2, torch.device("cpu"))
    for at in range(0, 5000, 500):
        moments.count(torch.ones(500, 16, dtype=torch.bool))
        moments.update(0, values[:, at : at + 500].contiguous(), None)
    assert moments.of(0).kurtosis is None
    assert moments.of(0).sd == 0
    # One value of n that differs: kurtosis n - 2 + 1 / (n - 1).
    assert moments.of(1).kurtosis == pytest.approx(80_000, rel=1e-3)
