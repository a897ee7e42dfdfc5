"""The widest range of ranks with one law: planted, and found from samples."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from gaussian_spectra import spectrum

from polycode_plugins.files import guards
from polycode_plugins.metrics import Spectrum
from polycode_plugins.metrics.spectrum.law.power_law import PowerLawFit, fit_power_law

WIDTH = 200
RANKS = np.arange(1.0, WIDTH + 1)
PLANTED = {
    # population, first and last rank of the law, exponent there
    "one law": (RANKS**-1.0, 1, 200, 1.0),
    "floor": (np.maximum(RANKS**-1.0, 1 / 50), 1, 50, 1.0),
    "bend": (np.where(RANKS <= 50, RANKS**-1.0, 50.0 * RANKS**-2.0), 1, 50, 1.0),
    "head of spikes": (np.where(RANKS <= 10, 20, 1) * RANKS**-1.0, 11, 200, 1.0),
    "cut-off": (np.where(RANKS <= 100, 1, 1e-3) * RANKS**-1.0, 1, 100, 1.0),
    "spikes and floor": (
        np.maximum(np.where(RANKS <= 6, 10, 1) * RANKS**-1.0, 1 / 50), 7, 50, 1.0,
    ),
}  # fmt: skip


def fits(population: np.ndarray, n: int, seeds: int) -> list[PowerLawFit]:
    return [fit_power_law(spectrum(population, n, s), n, width=WIDTH) for s in range(seeds)]


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_ends_are_found_within_a_fifth(kind):
    population, first, last, exponent = PLANTED[kind]
    found = [f.domain for f in fits(population, 2000, 6)]
    near = [abs(d.first / first - 1) <= 0.2 and abs(d.last / last - 1) <= 0.2 for d in found]
    assert np.mean(near) > 0.8
    assert np.mean([d.exponent for d in found]) == pytest.approx(exponent, abs=0.03)
    assert np.mean([d.interval[0] <= exponent <= d.interval[1] for d in found]) > 0.6
    for d in found:
        assert d.decades == pytest.approx(np.log10(d.last / d.first))
        assert d.first_interval[0] <= d.first
        assert d.last <= d.last_interval[1]


def test_the_deviation_is_an_effect_size_and_none_for_one_law():
    one, bend = (fits(PLANTED[kind][0], 2000, 5) for kind in ("one law", "bend"))
    assert max(f.deviation for f in one) < 0.01
    rank = np.arange(11, 201)
    weights = 1 / rank
    logs = np.log10(PLANTED["bend"][0][10:])
    line = np.polynomial.Polynomial.fit(np.log10(rank), logs, 1, w=np.sqrt(weights))
    off = np.sqrt(np.average((logs - line(np.log10(rank))) ** 2, weights=weights))
    assert np.mean([f.deviation for f in bend]) == pytest.approx(off, rel=0.1)
    # It does not grow with the number of samples, as the evidence of a break does.
    more = fits(PLANTED["bend"][0], 20_000, 2)
    assert more[0].deviation == pytest.approx(off, rel=0.1)


def test_the_grade_is_a_sentence():
    fit = fits(PLANTED["floor"][0], 2000, 1)[0]
    assert fit.verdict == "broken"
    assert fit.grade.startswith(f"one law over ranks 1 to {fit.domain.last}, 1.")
    assert "decades, " in fit.grade
    assert fit.grade.endswith(f"off one law by {fit.deviation:.2f} decades")
    share = fit.domain.share
    values = spectrum(PLANTED["floor"][0], 2000, 0)
    assert share == pytest.approx(values[: fit.domain.last].sum() / values.sum())


def test_an_exponential_has_no_long_law():
    found = fits(np.exp(-RANKS / 40), 2000, 3)
    assert all(f.domain is None or f.domain.share < 0.9 or f.deviation > 0.1 for f in found)
    assert all(f.deviation > 0.1 for f in found)


def test_a_domain_survives_its_dictionary():
    fit = fits(PLANTED["floor"][0], 2000, 1)[0]
    again = guards.restored(PowerLawFit, asdict(fit))
    assert again == fit
    assert again.domain == fit.domain


def test_far_fewer_samples_than_features_lead_no_curve_astray():
    population = np.arange(1.0, 5001) ** -1.0
    found = [fit_power_law(spectrum(population, 40, s), 40, width=5000) for s in range(8)]
    assert np.mean([f.exponent for f in found]) == pytest.approx(1.0, abs=0.02)
    assert all(abs(f.domain.exponent - 1) < 0.2 for f in found if f.domain is not None)


@pytest.mark.parametrize(("seed", "samples", "width"), [(5, 17, 12), (55, 10, 8)])
def test_a_dozen_samples_have_a_result_and_no_range_of_one_law(seed, samples, width):
    generator = torch.Generator().manual_seed(seed)
    torch.randint(9, 30, (1,), generator=generator)
    torch.randint(7, 14, (1,), generator=generator)
    values = torch.randn(samples, width, generator=generator)
    values *= torch.arange(1, width + 1).float() ** -float(torch.rand(1, generator=generator))
    assert Spectrum(ranks=(1, None)).measure(values).power_law.domain is None
