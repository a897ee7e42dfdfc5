"""What the chapter of a spectrum says in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from polycode_plugins.activations import Site
from polycode_plugins.metrics import Spectrum
from polycode_plugins.metrics.spectrum.chapter import findings

SITES = [Site("a", 0), Site("b", 1)]


@pytest.mark.parametrize(("half", "together"), [(0.05, False), (0.2, True)])
def test_exponents_whose_intervals_meet_are_not_told_apart(half, together):
    rows = torch.randn(400, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = Spectrum(ranks=(1, None)).measure(rows * torch.arange(1, 61) ** -0.5)
    assert not one.power_law.broken
    results = [
        replace(one, power_law=replace(one.power_law, exponent=e, interval=(e - half, e + half)))
        for e in (0.9, 1.1)
    ]
    said = findings(SITES, results)
    assert said.startswith("The exponent runs from 0.90 (")
    assert ("whose intervals meet: these are not told apart" in said) is together
