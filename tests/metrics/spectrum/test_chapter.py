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


def test_ends_without_an_interval_are_not_told_apart_and_only_broken_spectra_follow_no_law():
    rows = torch.randn(400, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = Spectrum(ranks=(1, None)).measure(rows * torch.arange(1, 61) ** -0.5)
    law = replace(one.power_law, exponent=0.9)
    unknown = replace(law, exponent=1.1, interval=None, spreads=())
    broken = replace(law, broken=True)
    results = [replace(one, power_law=p) for p in (law, unknown, broken)]
    said = findings([*SITES, Site("c", 2)], results)
    assert "1.10 at b, not both with an interval: these are not told apart" in said
    assert "over 2 of 3 sites (no single law holds at the others)" in said
    said = findings(SITES, results[1:])
    assert said.startswith(
        "The exponent is 1.10 at a; no single law holds at any other of 2 sites."
    )
