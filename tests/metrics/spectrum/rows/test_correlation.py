"""Correlation of rows that differs by direction: its sample spectrum, and finding it in data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gaussian_spectra import eigenvalues, power_law, spectra
from scipy.linalg import toeplitz

from polycode_plugins.activations import Activations
from polycode_plugins.metrics import Spectrum
from polycode_plugins.metrics.spectrum.law import sample_spectrum as module
from polycode_plugins.metrics.spectrum.law.levels import every_rank, levels
from polycode_plugins.metrics.spectrum.law.power_law import fit_power_law
from polycode_plugins.metrics.spectrum.law.sample_spectrum import sample_spectrum
from polycode_plugins.metrics.spectrum.rows.correlation import RowCorrelation

WIDTH = 100
FALLING = np.linspace(0.95, 0.0, WIDTH)


def regressed(documents: int, length: int, lag: np.ndarray, seed: int) -> np.ndarray:
    z = np.random.default_rng(seed).standard_normal((documents, length, len(lag)))
    x = z.copy()
    for t in range(1, length):
        x[:, t] = lag * x[:, t - 1] + np.sqrt(1 - lag**2) * z[:, t]
    return x


def with_mean(documents: int, length: int, share: float | np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((documents, length, WIDTH))
    common = rng.standard_normal((documents, 1, WIDTH))
    return (1 - np.asarray(share)) ** 0.5 * own + np.asarray(share) ** 0.5 * common


def measured(values: np.ndarray):
    turn = np.linalg.qr(np.random.default_rng(9).standard_normal((WIDTH, WIDTH)))[0]
    values = values * power_law(WIDTH, 1.0) ** 0.5 @ turn
    return Spectrum().measure(
        Activations(torch.from_numpy(values), ("batch", "position", "feature"))
    )


def described(lag: np.ndarray, common: np.ndarray, length: float) -> RowCorrelation:
    knots = (1.0, 4.0, 12.0, 30.0, 45.0, 60.0, 80.0, 100.0)
    ranks = np.arange(1, WIDTH + 1)
    at = [tuple(np.interp(knots, ranks, v).tolist()) for v in (lag, common)]
    return RowCorrelation(knots, at[0], at[1], length=length)


KINDS = {
    "autoregression that falls with rank": (
        lambda s: regressed(40, 50, FALLING, s),
        described(FALLING, 0 * FALLING, 50.0),
    ),
    "a mean of each document": (
        lambda s: with_mean(60, 50, 0.25, s),
        described(0 * FALLING, 0 * FALLING + 0.25, 50.0),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_expected_spectrum_is_that_of_simulation(kind):
    draw, rows = KINDS[kind]
    ranks, seeds = np.array([8, 16, 30, 60, 90, 100]), 40
    root = power_law(WIDTH, 1.0) ** 0.5
    samples = [draw(s).reshape(-1, WIDTH) * root for s in range(seeds)]
    n = len(samples[0])
    logs = np.array([np.log(eigenvalues(x)[ranks - 1]) for x in samples])
    found = sample_spectrum(power_law(WIDTH, 1.0), n - 1, ranks, rows=rows)
    off = np.log(found.values) - logs.mean(axis=0)
    error = logs.std(axis=0) / seeds**0.5
    assert np.all(np.abs(off) < 3.5 * error + 0.008)
    spread = np.sqrt(found.covariance(np.ones(len(ranks))).diagonal())
    assert np.allclose(spread / logs.std(axis=0), 1, atol=0.4)
    independent = sample_spectrum(power_law(WIDTH, 1.0), n - 1, ranks)
    assert np.abs(np.log(independent.values) - logs.mean(axis=0))[1:].max() > 0.03


def test_doubts_move_the_spectrum_as_another_correlation_would():
    rows = RowCorrelation(
        (1.0, 10.0, 100.0), (0.7, 0.5, 0.3), (0.1, 0.05, 0.0), 1.2, 40.0,
        doubts=((0.0, 0.02, 0.05, 0.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0, 0, 0, 0.02, 0, 0.05, 0.0)),
    )  # fmt: skip
    ranks = np.array([5, 20, 60, 100])
    base = sample_spectrum(power_law(WIDTH, 1.0), 2000, ranks, rows=rows)
    for told, other in zip(base.doubts(), rows.doubted, strict=True):
        moved = sample_spectrum(power_law(WIDTH, 1.0), 2000, ranks, rows=other)
        assert np.allclose(told, np.log(moved.values / base.values), atol=5e-4)
        assert np.abs(told).max() > 2e-3


def test_moments_give_the_correlation_that_has_them():
    for square, cube in ((4.0, 16.0), (3.0, 13.0), (2.0, 5.5), (4.06, 46.9)):
        found = RowCorrelation.from_moments(square, cube)
        assert found.square == pytest.approx(square, rel=1e-3)
        assert found.cube == pytest.approx(cube, rel=2e-3)
    assert RowCorrelation.from_moments(4.0, 16.0, 0.4).square_error == pytest.approx(0.4, rel=0.05)


def test_finite_samples_move_the_spectrum_by_a_part_of_a_rank():
    samples = np.log(np.array(spectra(100, 1.0, 130, 110)))
    ranks = np.array([60, 80, 95, 100])
    found = sample_spectrum(power_law(100, 1.0), 129, ranks)
    mean = samples[:, ranks - 1].mean(axis=0)
    error = samples[:, ranks - 1].std(axis=0) / len(samples) ** 0.5
    assert np.all(np.abs(np.log(found.values) - mean) < 3.5 * error)
    assert np.log(found.limit)[-1] - mean[-1] > 3.5 * error[-1]


def test_correlation_is_found_by_direction():
    found = [measured(regressed(60, 64, FALLING, s)) for s in range(4)]
    laws = [r.power_law for r in found]
    assert np.mean([f.exponent for f in laws]) == pytest.approx(1.0, abs=0.02)
    assert sum(f.interval[0] <= 1 <= f.interval[1] for f in laws) >= 3
    # One correlation for all directions, which was taken before, is wrong by more than 0.05.
    whole = RowCorrelation.from_moments(3.0, 13.0)
    single = [
        fit_power_law(r.eigenvalues, r.n_samples, width=WIDTH, rows=whole).exponent for r in found
    ]
    assert abs(np.mean(single) - 1) > 0.04


def correlations(draw, seeds: int) -> list[RowCorrelation]:
    """What the groups say of Gaussian rows, scaled to a power law."""
    from polycode_plugins.metrics.accumulators import Covariance
    from polycode_plugins.metrics.spectrum.rows.groups import RowGroups

    found = []
    for seed in range(seeds):
        values = torch.from_numpy(draw(seed) * power_law(WIDTH, 1.0) ** 0.5)
        batch = Activations(values, ("batch", "position", "feature"))
        covariance, groups = Covariance(), RowGroups()
        covariance.update(batch)
        groups.update(batch)
        found.append(groups.dependence(covariance).correlation)
    return found


def test_squares_by_rank_are_those_planted():
    """A direction of the sketch is a mixture of ranks: what changes with the rank comes out
    smoothed, too low where the fall is steepest and too high beyond, and the doubts hold that."""
    truth = np.log([np.square(toeplitz(lag ** np.arange(64))).sum() / 64 for lag in FALLING])
    found = correlations(lambda s: regressed(60, 64, FALLING, s), 12)
    away = np.array([np.log(rows.squares(WIDTH)) - truth for rows in found])
    doubt = [
        [np.log(one.squares(WIDTH) / rows.squares(WIDTH)) for one in rows.doubted] for rows in found
    ]
    doubt = np.array([np.sqrt(np.square(shifts).sum(axis=0)) for shifts in doubt])
    ranks = np.array([15, 30, 60])
    # Taken as one number, the squares would be off by 0.9, 0.3 and 0.7 here.
    assert np.abs(np.median(away, axis=0)[ranks - 1]).max() < 0.4
    # Over ranks that the sketch sees together.
    assert abs(np.mean(away[:, 10:60])) < 0.2
    assert np.mean(np.abs(away / doubt)[:, 9:60] < 2) > 0.9


def test_what_is_common_to_documents_breaks_no_law():
    found = [measured(with_mean(60, 50, 0.25, s)) for s in range(4)]
    assert sum(r.verdict == "broken" for r in found) <= 1
    assert np.mean([r.exponent for r in found]) == pytest.approx(1.0, abs=0.03)
    assert sum(r.interval[0] <= 1 <= r.interval[1] for r in found) >= 3


RISING = {
    "an autoregression": lambda s: regressed(60, 64, np.linspace(0.0, 0.95, WIDTH), s),
    "what is common": lambda s: with_mean(60, 50, np.linspace(0.0, 0.5, WIDTH), s),
}


@pytest.mark.parametrize("kind", RISING)
def test_what_rises_with_rank_is_told_apart_and_breaks_no_law(kind):
    """Both make sums over documents large, and moments alone can be had by either."""
    for rows in correlations(RISING[kind], 4):
        lag, common = rows.lag[-1], rows.common[-1]
        if kind == "an autoregression":
            assert lag > 0.5
            assert common < 0.05
        else:
            assert lag < 0.35
            assert common > 0.2
        assert rows.copies < 1.2
    found = [measured(RISING[kind](s)) for s in range(10)]
    assert sum(r.verdict == "broken" for r in found) <= 1
    assert np.mean([r.exponent for r in found]) == pytest.approx(1.0, abs=0.02)
    assert sum(r.interval[0] <= 1 <= r.interval[1] for r in found) >= 9


@pytest.mark.parametrize("documents", [6, 20])
def test_too_few_documents_leave_the_law_untested(documents):
    result = measured(regressed(documents, 1200 // documents, FALLING, 0))
    assert result.verdict == "not tested"
    assert "too few documents" in result.power_law.untested
    assert "not tested: 1200 samples of too few documents" in result.power_law.describe()
    assert any("was not tested" in said for said in result.warnings)
    # Rows of one sample each are independent, however few.
    few = Spectrum().measure(np.random.default_rng(0).standard_normal((50, WIDTH)))
    assert few.power_law.untested is None


def test_heavy_tailed_rows_are_worth_the_moments_of_their_norms():
    """Norms of a gamma distribution of shape s: E d^2 = 1 + 1/s, E d^3 = (1 + 1/s) (1 + 2/s)."""
    rows = RowCorrelation(tails=1.25)
    assert rows.square == pytest.approx(1.25)
    assert rows.cube == pytest.approx(1.25 * 1.5)
    copied = RowCorrelation(tails=1.25, copies=3.0)
    assert copied.square == pytest.approx(3.75)
    assert not rows.independent


@pytest.mark.parametrize(("square", "cube"), [(4.0, 16.0), (3.0, 13.0), (2.0, 5.5), (4.06, 46.9)])
def test_the_law_of_alike_directions_has_their_moments_and_its_derivative(square, cube):
    form = RowCorrelation.from_moments(square, cube).form()
    at = np.array([0.0, 1e-3, -1e-3, 0.2, -0.1]) + 0j
    value, slope = form.stretch(at)
    assert value[0] == pytest.approx(1)
    assert slope[0] == pytest.approx(square, rel=1e-3)
    bend = min((cube - square**2), (square**2 - 1) / 2)  # no more than an autoregression's
    second = (value[1] + value[2] - 2 * value[0]) / 1e-6
    assert second.real / 2 == pytest.approx(bend, rel=1e-2, abs=1e-3)
    moved = form.stretch(at + 1e-6)[0]
    assert (moved - value) / 1e-6 == pytest.approx(slope, rel=1e-3)


def test_a_correlation_cannot_be_moved_to_what_has_no_meaning():
    rows = RowCorrelation((1.0, 9.0), (0.99, -0.5), (0.9, 0.01), copies=1.1, length=30.0)
    for shift in (0.5, -0.5):
        moved = rows.moved(np.full(6, shift))
        assert max(np.abs(moved.lag)) < 1
        assert min(moved.common) >= 0
        assert max(moved.common) < 1
        assert moved.copies >= 1
        assert np.all(np.isfinite(moved.squares(20)))
        assert np.all(moved.squares(20) >= 1)
    same = rows.moved(np.zeros(6))
    assert same.parameters == pytest.approx(rows.parameters)


def test_points_of_other_ranks_and_other_rows_lead_on(monkeypatch):
    order = np.arange(1.0, 101)
    law, few = order**-1.0, np.arange(1, 101, 3)
    one = RowCorrelation(knots=(1.0, 100.0), lag=(0.6, 0.2), common=(0.1, 0.0), length=30.0)
    other = RowCorrelation(knots=(1.0, 100.0), lag=(0.5, 0.3), common=(0.15, 0.0), length=25.0)
    begun = sample_spectrum(law, 2000, few, rows=one).start
    ranks = np.arange(2, 99, 2)
    grouped = levels(np.log(law), 2000, np.array([50]))
    alone = sample_spectrum(law, 2000, ranks, None, other, grouped)

    def cold(*_):
        raise AssertionError("it began anew")

    monkeypatch.setattr(module, "found_from", cold)
    led = sample_spectrum(law, 2000, ranks, begun, other, grouped)
    assert np.abs(np.log(led.values / alone.values) / alone.log_spacing).max() < 1e-3
    with pytest.raises(AssertionError, match="anew"):
        sample_spectrum(law, 2000, ranks, None, other, grouped)


def test_points_from_a_far_start_are_those_found_without_one():
    order, ranks = np.arange(1.0, 101), np.arange(1, 101, 3)
    rows = RowCorrelation(knots=(1.0, 100.0), lag=(0.8, 0.2), common=(0.2, 0.0), length=30.0)
    grouped = every_rank(100)
    begun = sample_spectrum(order**-0.3, 900, ranks, rows=rows, grouped=grouped)
    for exponent in (0.4, 1.5):  # near, and so far that some points go astray
        law = order**-exponent
        led = sample_spectrum(law, 900, ranks, begun.start, rows, grouped)
        alone = sample_spectrum(law, 900, ranks, None, rows, grouped)
        # In ranks: of what a tenth of a percent of one makes.
        assert np.abs(np.log(led.values / alone.values) / alone.log_spacing).max() < 1e-3
        assert led.response == pytest.approx(alone.response, abs=1e-3)
