"""The widest range of ranks with one law: planted, and found from samples."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
import torch
from gaussian_spectra import spectrum

from polycode_plugins.files import guards
from polycode_plugins.metrics import Spectrum
from polycode_plugins.metrics.spectrum.law.bins import binned
from polycode_plugins.metrics.spectrum.law.domain import Curve, domain
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


def known(population: np.ndarray, noise: float = 1e-3) -> Curve:
    """A population's curve that is known, with noise that is next to none."""
    data = binned(population, 1, WIDTH, WIDTH, bins=48, cells=2)
    logs = np.log(RANKS)
    at = np.array([logs[a - 1 : b - 1].mean() for a, b in pairwise(data.edges)])
    spread = noise**2 * np.eye(len(at))
    return Curve(data, data.values, spread, at, np.log(population))


@pytest.mark.parametrize("kind", PLANTED)
def test_of_a_known_curve_the_planted_range_is_found_but_for_a_bin(kind):
    population, first, last, exponent = PLANTED[kind]
    curve = known(population)
    found = domain(curve, population, 0)
    assert abs(found.first - first) <= max(1, 0.12 * first)  # as wide as a bin
    assert abs(found.last - last) <= 0.12 * last
    assert found.exponent == pytest.approx(exponent, abs=0.01)
    assert found.share == pytest.approx(
        population[found.first - 1 : found.last].sum() / population.sum()
    )
    assert curve.slope(found.first, found.last) == pytest.approx(-exponent, abs=0.05)


@pytest.mark.parametrize(("jump", "whole"), [(0.02, True), (0.2, False)])
def test_a_law_may_be_off_by_a_hundredth_of_a_decade_and_not_by_a_tenth(jump, whole):
    population = np.where(RANKS <= 40, 1.0, np.exp(-jump)) / RANKS
    found = domain(known(population), population, 0)
    assert (found.first == 1 and found.last == WIDTH) is whole


def test_the_deviation_of_a_known_curve_is_that_of_its_points_less_the_noise():
    population = PLANTED["bend"][0]
    curve = known(population)
    weights = np.diff(np.log(curve.data.edges - 0.5))
    line = np.polynomial.Polynomial.fit(curve.ranks, curve.logs, 1, w=np.sqrt(weights))
    off = np.average((curve.logs - line(curve.ranks)) ** 2, weights=weights)
    assert curve.deviation(1, WIDTH) == pytest.approx(np.sqrt(off) / np.log(10), rel=1e-3)
    # Noise of independent bins adds its own variance, but for the two that a line takes up.
    loud = known(population, 0.3)
    draws = np.random.default_rng(0).normal(0, 0.3, (200, len(weights)))
    found = []
    for draw in draws:
        noisy = Curve(loud.data, loud.logs + draw, loud.covariance, loud.ranks, loud.line)
        found.append(noisy.deviation(1, WIDTH) ** 2)
    assert np.mean(found) == pytest.approx(off / np.log(10) ** 2, rel=0.03)
