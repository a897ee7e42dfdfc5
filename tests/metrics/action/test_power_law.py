"""The action that follows from a spectrum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polycode_plugins.errors import DataError
from polycode_plugins.metrics import Action, Spectrum, power_law_action


def test_the_static_action_follows_from_the_spectrum():
    rng = np.random.default_rng(0)
    samples = torch.from_numpy(rng.standard_normal((4000, 60)) * np.arange(1, 61) ** -0.75)
    spectrum = Spectrum(ranks=(1, 60)).measure(samples)
    action = Action(kind="static").measure(samples)
    relation = power_law_action(spectrum)
    assert relation.measured == pytest.approx(action.expected, rel=1e-10)
    # lambda = i^-1.5 planted: the finite sum is near, zeta(1.5) / 2 misses the factor k / m.
    assert relation.corrected == pytest.approx(action.expected, rel=0.1)
    assert relation.as_published is not None
    assert relation.as_published > 10 * action.expected
    exact = 3 / (2 * 60) * float((np.arange(1, 61) ** -1.5).sum())
    assert power_law_action(exponent=1.5, width=60).corrected == pytest.approx(exact, rel=1e-12)
    assert power_law_action(exponent=0.9, width=60).as_published is None
    for bad in ({}, {"exponent": 1.0}, {"spectrum": spectrum, "exponent": 1.0}):
        with pytest.raises(DataError, match="give a"):
            power_law_action(**bad)
