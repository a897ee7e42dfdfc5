"""Measures of planted spectra: corrected, covered, or refused with a reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gaussian_spectra import eigenvalues, power_law, spectra, spectrum

from polycode_plugins.errors import DataError
from polycode_plugins.files import guards
from polycode_plugins.metrics.spectrum.effective_dimensions import (
    EffectiveDimensions,
    effective_dimensions,
)
from polycode_plugins.metrics.spectrum.rows.correlation import INDEPENDENT, RowCorrelation
from polycode_plugins.metrics.spectrum.summaries import (
    matrix_entropy,
    participation_ratio,
    spectral_entropy,
)


def truths(law: np.ndarray) -> dict[str, float]:
    p = law / law.sum()
    roots = np.sqrt(law) / np.sqrt(law).sum()
    return {
        "participation_ratio": 1 / np.sum(p**2),
        "effective_rank": np.exp(-np.sum(roots * np.log(roots))),
        "stable_rank": 1 / p[0],
        "spectral_entropy": -np.sum(p * np.log(p)),
        "matrix_entropy": -np.log2(np.sum(p**2)),
    }


def test_a_population_is_measured_as_it_is():
    law = power_law(100, 1.0)
    found = effective_dimensions(law, 10**8).named()
    for name, truth in truths(law).items():
        assert found[name].value == pytest.approx(truth, rel=1e-3)
        assert found[name].naive == pytest.approx(truth, rel=1e-6)
        assert found[name].interval[0] < truth * 1.001
        assert found[name].interval[1] > truth * 0.999
    cumulated = np.cumsum(law) / law.sum()
    for share in (90, 95, 99):
        rank = found[f"rank_{share}"]
        assert rank.naive == 1 + np.searchsorted(cumulated, share / 100)
        assert rank.value == pytest.approx(rank.naive, rel=0.03)
        assert rank.interval is None
        assert "no interval" in rank.why


@pytest.mark.parametrize("n", [60, 120, 400])
def test_few_samples_cost_the_interval_its_width_and_not_its_truth(n):
    law = power_law(120, 1.0)
    found = [effective_dimensions(e, n, width=120).named() for e in spectra(120, 1.0, n, 40)]
    for name, truth in truths(law).items():
        given = [one[name] for one in found if one[name].value is not None]
        if name == "stable_rank" and n < 400:  # only where the first stands apart by chance
            continue
        assert len(given) == 40
        values = np.array([one.value for one in given])
        assert values.mean() == pytest.approx(truth, rel=0.08 if n == 60 else 0.05)
        inside = np.mean([one.interval[0] <= truth <= one.interval[1] for one in given])
        assert inside >= 0.82
    ranks = [one["effective_rank"] for one in found]
    wrong = np.mean([one.naive for one in ranks])
    right = np.mean([one.value for one in ranks])
    truth = truths(law)["effective_rank"]
    assert abs(right - truth) < 0.25 * abs(wrong - truth)


def test_the_worst_case_of_the_formulas_is_right():
    law = power_law(512, 1.0)
    found = effective_dimensions(spectrum(law, 256, 3), 256, width=512).effective_rank
    assert found.naive == pytest.approx(196, abs=3)
    assert found.value == pytest.approx(truths(law)["effective_rank"], rel=0.04)


def test_what_so_few_samples_cannot_say_is_not_said():
    found = effective_dimensions(spectrum(power_law(200, 1.5), 40, 0), 40, width=200)
    assert found.effective_rank.value is None
    assert found.effective_rank.interval is None
    assert "40 samples for 200 features see too little" in found.effective_rank.why
    assert found.rank_90.value is None
    flat = effective_dimensions(spectrum(np.ones(100), 300, 0), 300, width=100)
    assert flat.stable_rank.value is None
    assert "too close to the second" in flat.stable_rank.why
    tiny = effective_dimensions(spectrum(power_law(5, 1.0), 20, 0), 20, width=5)
    assert tiny.effective_rank.interval is None
    assert "fewer than 30 independent samples" in tiny.effective_rank.why


def test_correlated_rows_count_as_the_fewer_they_are_worth():
    law = power_law(100, 1.0)
    repeated = np.repeat(np.random.default_rng(0).standard_normal((200, 100)), 4, axis=0)
    values = np.linalg.svd(repeated * np.sqrt(law), compute_uv=False) ** 2 / 799
    truth = truths(law)["effective_rank"]
    right = effective_dimensions(
        values, 800, rows=RowCorrelation.from_moments(4.0, 16.0)
    ).effective_rank
    assert right.value == pytest.approx(truth, rel=0.02)
    assert right.interval[0] < truth < right.interval[1]
    wrong = effective_dimensions(values, 800).effective_rank
    assert not wrong.interval[0] < truth < wrong.interval[1]
    doubted = effective_dimensions(
        values, 800, rows=RowCorrelation.from_moments(4.0, 16.0, 0.4)
    ).effective_rank
    assert np.ptp(doubted.interval) > 1.2 * np.ptp(right.interval)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
@pytest.mark.parametrize("values", [[1.0], [1.0, 0.0], [1.0, 1.0], [1, 1e-17], [5.0, 3.0, 1e-3]])
def test_odd_spectra_give_finite_numbers_or_none(values, scale):
    for n in (3, 4, 30, 10**6):
        found = effective_dimensions(np.array(values) * scale, n)
        for one in found.named().values():
            assert one.value is None or np.isfinite(one.value)
            assert one.value is not None or one.why
            if one.interval is not None:
                assert one.interval[0] <= one.value <= one.interval[1]


def test_measures_survive_json_and_lose_intervals_with_a_reason():
    found = effective_dimensions(spectrum(power_law(50, 1.0), 200, 0), 200)
    from dataclasses import asdict

    again = guards.restored(EffectiveDimensions, json.loads(json.dumps(asdict(found))))
    assert again == found
    bare = found.without_intervals("because")
    assert all(one.interval is None for one in bare.named().values())
    assert bare.effective_rank.why == "because"
    wider = found.beside(effective_dimensions(spectrum(power_law(50, 1.0), 200, 1), 200))
    assert wider.effective_rank.value == found.effective_rank.value
    assert wider.effective_rank.interval[0] <= found.effective_rank.interval[0]


def test_entropies_of_the_sample():
    assert spectral_entropy(np.ones(8)) == pytest.approx(np.log(8))
    for order in (0.5, 1, 2, 3.5):
        assert matrix_entropy(np.ones(8) * 1e200, order) == pytest.approx(3)
    assert matrix_entropy([3.0, 1.0]) == pytest.approx(-np.log2(10 / 16))
    near = [matrix_entropy([3.0, 1.0], order) for order in (1 - 1e-6, 1, 1 + 1e-6)]
    assert near[0] == pytest.approx(near[1], abs=1e-5)
    assert near[2] == pytest.approx(near[1], abs=1e-5)
    with pytest.raises(DataError, match="order"):
        matrix_entropy([1.0], 0)


def test_measures_are_as_sure_as_the_directions_they_hang_on():
    """Correlation that falls with rank: the strong directions are known less well than others."""
    knots = tuple(np.geomspace(1.0, 100.0, 16).tolist())
    lag = np.interp(knots, [1, 100], [0.95, 0.0])
    rows = RowCorrelation(knots, tuple(lag.tolist()), (0.0,) * 16)
    law, planted = power_law(100, 1.0), np.linspace(0.95, 0.0, 100)
    found = []
    for seed in range(40):
        fresh = np.random.default_rng(seed).standard_normal((40, 110, 100))
        values = fresh.copy()
        for at in range(1, 110):
            values[:, at] = planted * values[:, at - 1] + np.sqrt(1 - planted**2) * fresh[:, at]
        own = eigenvalues(values[:, 60:].reshape(-1, 100) * np.sqrt(law))
        found.append(effective_dimensions(own, 2000, rows=rows).named())
    for name in ("participation_ratio", "stable_rank", "spectral_entropy"):
        given = [one[name] for one in found if one[name].interval is not None]
        inside = [one.interval[0] <= truths(law)[name] <= one.interval[1] for one in given]
        # How far the first eigenvalue stands apart is known less well too.
        assert len(given) == 40 or (name == "stable_rank" and len(given) >= 15)
        # The mean of an entropy is corrected by the rows' mean correlation alone.
        assert np.mean(inside) >= (0.78 if name == "spectral_entropy" else 0.87), name
    for one in found:
        assert one["effective_rank"].interval is None
        assert "in some directions as in others" in one["effective_rank"].why
        # Corrected by the mean over log rank, which the weak directions need less of.
        assert one["effective_rank"].value == pytest.approx(truths(law)["effective_rank"], rel=0.05)


@pytest.mark.parametrize(
    ("exponent", "n", "most"),
    [(0.0, 60, 2.2), (0.5, 60, 1.3), (1.0, 60, 1.3), (1.0, 400, 1.3)],  # the flat one errs upwards
)
def test_the_interval_of_the_participation_ratio_is_as_wide_as_its_spread(exponent, n, most):
    found = [
        effective_dimensions(e, n, width=40).participation_ratio
        for e in spectra(40, exponent, n, 60)
    ]
    alone = participation_ratio(spectra(40, exponent, n, 60)[0], n, width=40)
    assert found[0].value == pytest.approx(alone.corrected, rel=1e-12)
    logs = np.log([one.value for one in found])
    half = np.mean([np.log(one.value / one.interval[0]) for one in found]) / 1.96
    assert 0.8 < half / logs.std() < most
    assert all(one.interval[1] <= 40 for one in found)


def test_ratios_have_intervals_that_reach_as_far_to_either_side_of_their_logarithm():
    found = effective_dimensions(spectrum(power_law(100, 1.0), 2000, 0), 2000)
    for one in (found.participation_ratio, found.stable_rank):
        low, high = np.log(np.array(one.interval) / one.value)
        assert high == pytest.approx(-low)
        assert 0.005 < high < 0.2


def test_intervals_with_the_widest_correlation_reach_over_those_of_either():
    values = spectrum(power_law(50, 1.0), 200, 0)
    widest = RowCorrelation.from_moments(2.0, 5.5)
    alone, other = (effective_dimensions(values, 200, rows=r) for r in (INDEPENDENT, widest))
    found = effective_dimensions(values, 200, widest=widest).named()
    for name, one in alone.beside(other).named().items():
        assert found[name] == one
    ratio = found["participation_ratio"]
    assert ratio.value == alone.participation_ratio.value
    assert ratio.interval[1] > alone.participation_ratio.interval[1]
