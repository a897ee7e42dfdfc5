"""Sums over a planted population, from its samples."""

from __future__ import annotations

import numpy as np
import pytest
from gaussian_spectra import power_law, spectra

from polycode_plugins.metrics.spectrum.rows.correlation import INDEPENDENT, RowCorrelation
from polycode_plugins.metrics.spectrum.rows.degrees_of_freedom import DegreesOfFreedom, RidgeSums


def curve_of(values: np.ndarray, dof: float, width: int, rows: RowCorrelation) -> DegreesOfFreedom:
    return DegreesOfFreedom.of(RidgeSums.of(values, width), dof, rows)


def entropy(values: np.ndarray) -> float:
    p = values / values.sum()
    return float(-np.sum(p * np.log(p)))


def test_of_infinitely_many_samples_the_curve_and_its_entropies_are_the_population_s():
    law = power_law(100, 1.0)
    curve = curve_of(law, 1e9, 100, INDEPENDENT)
    mean = law.mean()
    expected = (law[:, None] / (law[:, None] + mean * curve.kappa)).sum(axis=0)
    assert np.allclose(curve.curve, expected, rtol=1e-6)
    assert curve.square == pytest.approx(np.sum((law / mean) ** 2), rel=1e-2)
    roots, plain = (curve.entropy(of_roots=of_roots) for of_roots in (True, False))
    assert roots.value == pytest.approx(entropy(np.sqrt(law)), abs=2e-4)
    assert plain.value == pytest.approx(entropy(law), abs=2e-4)
    assert max(curve.error(roots), curve.error(plain)) < 1e-4


@pytest.mark.parametrize("n", [100, 101, 400])
def test_errors_are_those_that_samples_have_and_the_mean_is_the_truth(n):
    law = power_law(100, 1.0)
    curves = [
        curve_of(e[: min(100, n - 1)], n - 1, 100, INDEPENDENT) for e in spectra(100, 1.0, n, 60)
    ]
    found = [curve.entropy(of_roots=True) for curve in curves]
    values = np.array([one.value for one in found])
    spread = values.std(ddof=1)
    assert abs(values.mean() - entropy(np.sqrt(law))) < 3 * spread / np.sqrt(60)
    errors = [curve.error(one) for curve, one in zip(curves, found, strict=True)]
    assert np.mean(errors) == pytest.approx(spread, rel=0.3)
    # The fault it cures: the sample's own entropy misses by many times its spread.
    naive = np.mean([entropy(np.sqrt(e[: min(100, n - 1)])) for e in spectra(100, 1.0, n, 60)])
    assert naive < entropy(np.sqrt(law)) - 5 * spread


@pytest.mark.parametrize("seen", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("population", ["law", "two levels", "half empty", "some far above"])
def test_what_few_samples_leave_open_lies_between_the_bounds(population, seen):
    law = {
        "law": power_law(200, 1.0),
        "two levels": np.repeat([1.0, 0.01], 100),
        "half empty": np.repeat([1.0, 1e-9], [110, 90]),  # as if these features were constant
        "some far above": np.repeat([1e4, 1.0], [20, 180]),
    }[population]
    # The curve of the population itself, cut off where so many samples would see its end.
    whole = curve_of(law, 1e12, 200, INDEPENDENT)
    start = int(np.searchsorted(-whole.curve, -seen * 200))
    cut = {
        name: getattr(whole, name)[start:]
        for name in ("log_kappa", "curve", "mended", "slope", "stretch", "bent")
    }
    curve = DegreesOfFreedom(whole.n, 200, **cut, ends=whole.ends, complete=False)
    least, between, most = curve.unseen()
    assert np.all(least <= between + 1e-9)
    assert np.all(between <= most + 1e-9)
    kappa = np.exp(curve.log_kappa[0] + np.linspace(-30, 0, len(least)))
    true = (law[:, None] / (law[:, None] + law.mean() * kappa)).sum(axis=0)
    assert np.all(least <= true + 0.02)
    assert np.all(true <= most + 0.02)
    bounds = curve.entropy(of_roots=True)
    assert bounds.low - 1e-3 <= entropy(np.sqrt(law)) <= bounds.high + 1e-3


@pytest.mark.parametrize(
    "rows",
    [
        RowCorrelation.from_moments(3.0, 9.0),  # repeated
        RowCorrelation.from_moments(2.0, 4.0 + 0.5 * 3),  # an autoregression
        RowCorrelation.from_moments(30.0, 900.0),
        RowCorrelation.from_moments(30.0, 1200.0),
    ],
)
def test_the_curve_rises_and_is_finite_for_correlated_rows(rows):
    for n in (60, 150, 1000):
        curve = curve_of(spectra(100, 1.0, n, 1)[0][: min(n - 1, 100)], n - 1, 100, rows)
        assert np.all(np.diff(curve.log_kappa) > 0)
        assert np.all(np.diff(curve.curve) < 0)
        for of_roots in (True, False):
            found = curve.entropy(of_roots=of_roots)
            assert np.isfinite([found.value, found.low, found.high, curve.error(found)]).all()
            assert found.low <= found.value <= found.high
