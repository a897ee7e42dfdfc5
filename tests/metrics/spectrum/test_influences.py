"""Influences of samples on the spectrum's numbers: what weighting a sample more does, and whether
their sums are the errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import polycode_plugins as pc
from polycode_plugins.activations import Activations, Site
from polycode_plugins.metrics import Capacity, Spectrum
from polycode_plugins.metrics.spectrum.influences import (
    above_rounding,
    dimension_gains,
    exponent_gain,
)
from polycode_plugins.metrics.spectrum.law.power_law import fit_power_law
from polycode_plugins.metrics.spectrum.summaries import (
    effective_rank,
    matrix_entropy,
    participation_ratio,
    spectral_entropy,
)

WIDTH = 60
SITE = Site("a", axes=("batch", "feature"))


def code(rng: np.random.Generator, n: int, exponent: float = 1.0, width: int = WIDTH):
    return rng.standard_normal((n, width)) * np.arange(1.0, width + 1) ** (-exponent / 2)


def run(metric, values: np.ndarray):
    rows = torch.arange(len(values))
    batch = Activations(torch.from_numpy(values), SITE.axes, rows=rows)
    accumulators = metric.accumulators()
    for accumulator in accumulators.values():
        accumulator.update(batch)
    result = metric.compute(accumulators, SITE)
    return result, metric.influences(accumulators, result, torch.from_numpy(values).float())


def test_derivatives_are_those_of_the_formulas():
    """Against small changes of each eigenvalue."""
    values = np.arange(1.0, 9) ** -1.2
    formulas = {
        "participation_ratio": lambda v: np.log(participation_ratio(v, 1e9).naive),
        "effective_rank": lambda v: np.log(effective_rank(v)),
        "stable_rank": lambda v: np.log(v.sum() / v[0]),
        "spectral_entropy": spectral_entropy,
        "matrix_entropy": matrix_entropy,
    }
    found = dimension_gains(values)
    assert set(found) == set(formulas)
    for name, formula in formulas.items():
        moved = [
            (formula(values * np.exp(step)) - formula(values * np.exp(-step))) / 2e-6
            for step in 1e-6 * np.eye(len(values))
        ]
        np.testing.assert_allclose(found[name], moved, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("samples", [3000, 200])
def test_the_exponents_derivative_is_that_of_the_fit(samples):
    """Against fits of spectra that are tilted, bent, and lifted beyond the ranks."""
    values = np.sort(np.linalg.eigvalsh(np.cov(code(np.random.default_rng(0), samples).T)))[::-1]
    values = np.maximum(values, 0)[: min(WIDTH, samples - 1)]
    fit = fit_power_law(values, samples, width=WIDTH, ranks=(5, 30))
    gain = exponent_gain(values, fit)
    assert gain is not None
    rank = np.arange(1.0, len(values) + 1)
    for direction in (-np.log(rank), np.log(rank / 12) ** 2, 0.3 * (rank > 30)):
        up, down = (
            fit_power_law(np.sort(moved)[::-1], samples, width=WIDTH, ranks=(5, 30))
            for moved in (values * np.exp(s * direction) for s in (0.02, -0.02))
        )
        moved = (up.exponent - down.exponent) / 0.04
        assert gain @ direction[: len(gain)] == pytest.approx(moved, abs=0.04)


def test_a_published_fit_has_none():
    fit = fit_power_law(np.arange(1.0, 61) ** -1, 500, fit="stringer", ranks=(5, 30))
    assert exponent_gain(np.arange(1.0, 61) ** -1, fit) is None


FIELDS = ("exponent", "participation_ratio", "effective_rank", "stable_rank", "spectral_entropy")


def test_sums_of_influences_are_the_errors():
    """Of independent Gaussian rows, whose errors are known: by size, and sample by sample."""
    metric = Spectrum(ranks=(5, 40))
    numbers, spreads = [], []
    for seed in range(40):
        result, found = run(metric, code(np.random.default_rng([1, seed]), 600))
        assert set(found.values) == {*FIELDS, "slope", "matrix_entropy"}
        numbers.append([result.scalars()[name] for name in FIELDS])
        spreads.append([found.values[name].std() / 600**0.5 for name in FIELDS])
    np.testing.assert_allclose(np.mean(spreads, axis=0), np.std(numbers, axis=0), rtol=0.3)


@pytest.mark.parametrize("metric", [Spectrum(ranks=(5, 40)), Capacity(), Capacity(step=0.2)])
def test_samples_that_are_left_out_do_what_their_influences_say(metric):
    """A tenth of 3,000 samples, another one each time."""
    rng = np.random.default_rng(2)
    values = code(rng, 3000)
    _, found = run(metric, values)
    said, moved = [], []
    for _ in range(12):
        kept = rng.random(len(values)) > 0.1
        result, _ = run(metric, values[kept])
        moved.append([result.scalars()[name] for name in found.values])
        said.append([influence[kept].mean() for influence in found.values.values()])
    for name, one, other in zip(found.values, np.array(said).T, np.array(moved).T, strict=True):
        slope = np.cov(one, other)[0, 1] / one.var(ddof=1)
        assert np.corrcoef(one, other)[0, 1] > 0.9, name
        assert slope == pytest.approx(1, abs=0.15), name


def test_numbers_without_an_interval_have_none():
    _, found = run(Spectrum(fit="huber", ranks=(5, 40)), code(np.random.default_rng(3), 400))
    assert "exponent" not in found.values
    assert "spectral_entropy" in found.values
    rows = torch.from_numpy(code(np.random.default_rng(3), 400).reshape(400, 3, 20))
    axes = ("batch", "position", "feature")
    for metric in (Spectrum(positions="features", ranks=(5, 40)), Capacity(positions="features")):
        accumulators = metric.accumulators()
        for accumulator in accumulators.values():
            accumulator.update(Activations(rows, axes, rows=torch.arange(400)))
        result = metric.compute(accumulators, Site("a", axes=axes))
        with pytest.raises(pc.DataError, match=r"have 20 values and .* 60, as with positions"):
            metric.influences(accumulators, result, torch.zeros(4, 20))


def test_eigenvalues_of_rounding_are_left_out():
    np.testing.assert_allclose(above_rounding(np.array([2.0, 1.0, 1e-16]), 3), [1.0, 0.5])
