"""Capacity against closed forms of planted covariances, and through every fault of numerics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gaussian_codes import SAMPLES, WIDTH, bits, gaussian, power_law
from scipy.signal import lfilter

import polycode_plugins as pc
from polycode_plugins.activations import Activations, Site
from polycode_plugins.errors import DataError
from polycode_plugins.metrics import Capacity, Spectrum
from polycode_plugins.runs.analysis import Analysis
from polycode_plugins.runs.gathering import Statistics
from polycode_plugins.theory import (
    dropout_capacity,
    gaussian_entropy,
    gaussian_information,
    power_law_entropy,
)

# -- known truths ----------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.5])
def test_known_covariance_gives_closed_form_bits(exponent):
    variances = 3.0 * power_law(exponent=exponent)
    result = Capacity(step=0.05, noise=0.02).measure(gaussian(variances))
    # 2.5 standard deviations of the sum of log variances is 2.5 sqrt(d / 2n) / ln 2 bits.
    error = 2.5 * np.sqrt(WIDTH / (2 * SAMPLES)) / np.log(2)
    assert result.entropy == pytest.approx(gaussian_entropy(variances, 0.05), abs=error)
    assert result.information == pytest.approx(gaussian_information(variances, 0.02), abs=error)
    flat = np.full(WIDTH, variances.mean())
    assert result.flat_entropy == pytest.approx(gaussian_entropy(flat, 0.05), abs=2.5)
    assert result.capacity == pytest.approx(
        WIDTH / 2 * np.log2(1 + result.total_variance / WIDTH / 0.02), rel=1e-12
    )
    assert result.redundancy == result.flat_entropy - result.entropy
    assert (result.step, result.noise) == (0.05, 0.02)


def test_correlated_tokens_are_no_independent_ones():
    variances, lag = power_law(exponent=0.8), 0.8
    step = 0.1 * np.sqrt(variances.mean())
    flat = gaussian_entropy(np.full(WIDTH, variances.mean()), step)
    truth = flat - gaussian_entropy(variances, step)
    found, loose = [], []
    for seed in range(20):
        noise = np.random.default_rng([3, seed]).standard_normal((40, 70, WIDTH))
        texts = lfilter([np.sqrt(1 - lag**2)], [1, -lag], noise, axis=1)[:, 40:]
        texts = torch.from_numpy(texts * np.sqrt(variances))
        axes = ("batch", "position", "feature")
        found.append(Capacity().measure(Activations(texts, axes)))
        if seed < 2:
            loose.append(Capacity().measure(texts.reshape(-1, WIDTH)))
    # (1 + lag^2) / (1 - lag^2) = 4.6 tokens are worth one in a long text, 4.2 in one of 30.
    assert np.mean([r.effective_samples for r in found]) == pytest.approx(1200 / 4.2, rel=0.05)
    assert np.mean([r.redundancy for r in found]) == pytest.approx(truth, abs=0.35)
    covered = [r.interval[0] <= truth <= r.interval[1] for r in found]
    assert np.mean(covered) >= 0.8
    # One draw has a standard deviation of 0.05 over 30 ranks, their mean one of 0.011.
    assert np.mean([r.power_law.exponent for r in found]) == pytest.approx(0.8, abs=0.04)
    # The fault this guards against: every token a text of its own.
    assert np.mean([r.redundancy for r in loose]) > truth + 1
    assert not any(r.interval[0] <= truth <= r.interval[1] for r in loose)


def test_an_interval_covers_heavy_tails_or_is_not_given():
    rng = np.random.default_rng(0)
    tails = torch.from_numpy(np.sqrt(rng.chisquare(5, size=(SAMPLES, 1)) / 5))
    plain, tailed = gaussian(power_law()), gaussian(power_law()) / tails
    widths = [np.ptp(Capacity().measure(rows).interval) for rows in (plain, tailed)]
    assert widths[1] > 1.2 * widths[0]
    few = gaussian(power_law(), 90) / torch.from_numpy(np.sqrt(rng.chisquare(1, size=(90, 1))))
    result = Capacity().measure(few)
    assert result.interval is None
    assert any("too heavy-tailed" in said for said in result.warnings)


def test_flat_spectrum_has_no_redundancy():
    result = Capacity().measure(gaussian(np.ones(WIDTH), samples=2000))
    assert abs(result.redundancy) < 0.1
    assert result.interval[0] < 0 < result.interval[1] < 0.2
    assert result.flat_entropy - result.entropy_naive > 0.25  # what passes for redundancy
    assert result.flat_entropy == pytest.approx(WIDTH * gaussian_entropy([1.0], 0.1), rel=1e-12)
    assert abs(result.headroom) < 0.1


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_power_law_agrees_with_theorem_4(exponent):
    result = Capacity().measure(gaussian(power_law(exponent=exponent), samples=20_000))
    law = result.power_law
    assert law.exponent == pytest.approx(exponent, abs=0.05)
    assert law.fit.exponent == law.exponent
    assert law.corrected == pytest.approx(result.entropy, abs=2.0)
    assert law.corrected == power_law_entropy(WIDTH, law.bits, law.exponent)
    assert law.as_published == power_law_entropy(WIDTH, law.bits, law.exponent, mode="as_published")
    given = Capacity(exponent=exponent).measure(gaussian(power_law(exponent=exponent)))
    assert given.power_law.fit is None
    assert given.power_law.exponent == exponent
    # The exact law, read exactly: no component is below the step, so the theorem is an equality.
    exact = gaussian_entropy(power_law(exponent=exponent) * 1e4, 0.01)
    first = gaussian_entropy([1e4], 0.01)
    assert power_law_entropy(WIDTH, first, exponent) == pytest.approx(exact, abs=1e-6)


def test_bits_that_are_given_are_used():
    result = Capacity(bits=32, exponent=1.0, dropout=0.25).measure(gaussian(power_law()))
    assert result.power_law.corrected == power_law_entropy(WIDTH, 32, 1.0)
    assert result.dropout.exact == pytest.approx(WIDTH * dropout_capacity(32, 0.25), rel=1e-12)
    assert result.power_law.bits_given
    assert result.dropout.bits_given


def test_dropout_takes_units_of_the_flat_code():
    result = Capacity(dropout=0.2).measure(gaussian(power_law()))
    drop = result.dropout
    assert drop.bits == pytest.approx(result.flat_entropy / WIDTH, rel=1e-12)
    assert drop.exact == pytest.approx(WIDTH * dropout_capacity(drop.bits, 0.2), rel=1e-12)
    assert drop.upper == pytest.approx(0.8 * result.flat_entropy, rel=1e-12)
    assert drop.lower < drop.additive <= drop.exact < drop.upper
    assert Capacity().measure(gaussian(power_law())).dropout is None
    known = Capacity(dropout=0.2, bits=2).measure(gaussian(np.ones(20))).dropout
    assert known.exact / 20 == pytest.approx(1.38127, abs=1e-5)


def test_redundancy_is_split_into_unequal_units_and_correlation():
    unequal = Capacity().measure(gaussian(power_law(), rotate=False))
    assert abs(unequal.lost_to_correlation) < 0.2
    assert unequal.lost_to_unequal_units == pytest.approx(unequal.redundancy, abs=0.2)
    # Equicorrelated units of equal variance: the loss is -1/2 log2 det of their correlations.
    corr = 0.5 * np.eye(8) + 0.5
    rows = np.random.default_rng(1).standard_normal((SAMPLES, 8)) @ np.linalg.cholesky(corr).T
    paired = Capacity(exponent=0.0, relative_step=0.001).measure(rows)
    loss = -np.log2(np.linalg.det(corr)) / 2
    assert paired.lost_to_correlation == pytest.approx(loss, abs=0.15)
    assert abs(paired.lost_to_unequal_units) < 0.02


# -- unit, step and noise --------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1.0, 2.0**20])
def test_relative_settings_do_not_depend_on_the_unit(scale):
    rows = gaussian(power_law())
    for metric in (Capacity(), Capacity(relative_step=0.01, snr=10.0)):
        one, other = metric.measure(rows), metric.measure(rows * scale)
        np.testing.assert_allclose(bits(other), bits(one), rtol=1e-9, atol=1e-9)
        assert other.snr == pytest.approx(one.snr)
        assert other.step == pytest.approx(one.step * scale)


def test_absolute_step_counts_a_bit_per_component_and_doubling():
    rows = gaussian(power_law())
    metric = Capacity(step=1e-3, noise=1e-7)
    one, other = metric.measure(rows), metric.measure(rows * 8)
    assert other.entropy - one.entropy == pytest.approx(3 * WIDTH, abs=1e-3)
    assert other.flat_entropy - one.flat_entropy == pytest.approx(3 * WIDTH, abs=1e-3)
    assert other.information - one.information == pytest.approx(3 * WIDTH, abs=1e-3)
    assert other.redundancy == pytest.approx(one.redundancy, abs=1e-3)


def test_relative_step_is_of_the_typical_deviation():
    result = Capacity().measure(gaussian(4 * np.ones(WIDTH), samples=50_000))
    assert result.step == pytest.approx(0.2, rel=0.01)
    assert result.relative_step == pytest.approx(0.1)
    assert result.noise == pytest.approx(result.step**2 / 12)
    louder = Capacity(snr=100.0).measure(gaussian(4 * np.ones(WIDTH)))
    assert louder.noise == pytest.approx(0.04, rel=0.01)
    assert (louder.step_from, louder.noise_from) == ("relative_step", "snr")


@pytest.mark.parametrize("metric", [Capacity(), Capacity(step=0.1), Capacity(snr=5.0)])
def test_same_distribution_whether_the_step_is_taken_or_given(metric):
    """With the step taken from the data or given at its value, the redundancy is one number."""
    result = metric.measure(gaussian(power_law(), samples=500))
    given = Capacity(step=result.step, noise=result.noise).measure(
        gaussian(power_law(), samples=500)
    )
    assert given.redundancy == pytest.approx(result.redundancy, abs=0.02)


# -- the sample's size and other faults of numerics ------------------------------------------------


def test_fewer_samples_than_units_say_so():
    result = Capacity().measure(gaussian(np.ones(100), samples=50))
    assert result.uncorrected == ("entropy", "information")
    assert result.interval is None
    assert result.entropy == result.entropy_naive
    assert any("too few samples" in w for w in result.warnings)
    assert all(w.endswith(".") and not w.endswith("..") for w in result.warnings)
    assert "not corrected for 50 samples" in result.describe()
    # Read coarsely enough, what no sample has shown no longer matters.
    coarse = Capacity(snr=0.5).measure(gaussian(np.ones(100), samples=90))
    assert coarse.uncorrected == ("entropy",)
    truth = gaussian_information(np.ones(100), 2.0)
    assert coarse.information == pytest.approx(truth, abs=2)
    assert coarse.information_naive < truth - 3


def test_two_samples_and_one_unit():
    two = Capacity().measure(gaussian(np.ones(5), samples=2))
    assert two.power_law is None
    assert two.entropy == gaussian_entropy(two.eigenvalues, two.step)
    assert any("no power law could be fitted" in w for w in two.warnings)
    one = Capacity().measure(gaussian([2.0], samples=100))
    assert one.redundancy == pytest.approx(0, abs=1e-4)
    assert one.lost_to_correlation == pytest.approx(0, abs=1e-4)
    one.plot()


def test_directions_without_variance_carry_nothing():
    rows = gaussian(power_law(20), samples=2000)
    mixing = torch.as_tensor(np.random.default_rng(2).standard_normal((20, 60)))
    result = Capacity(step=1e-12).measure(rows @ mixing)
    covariance = (mixing.T * 1.0) @ torch.cov(rows.T) @ mixing
    known = np.linalg.eigvalsh(covariance.numpy())[::-1][:20]
    assert result.entropy_naive == pytest.approx(gaussian_entropy(known, 1e-12), rel=1e-6)
    assert result.eigenvalues[20:].max() == 0
    assert not result.uncorrected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_short_formats(dtype):
    rows = gaussian(power_law())
    exact, short = Capacity().measure(rows), Capacity().measure(rows.to(dtype))
    assert short.redundancy == pytest.approx(exact.redundancy, abs=0.05)
    assert short.entropy == pytest.approx(exact.entropy, abs=0.05)


def test_a_far_mean_changes_nothing():
    rows = gaussian(power_law())
    moved = rows.clone()
    moved[:, 3] += 1000.0
    one, other = Capacity().measure(rows), Capacity().measure(moved)
    np.testing.assert_allclose(bits(other), bits(one), rtol=1e-7, atol=1e-7)
    single = Capacity(precision="float32").measure(moved.float())
    assert single.redundancy == pytest.approx(one.redundancy, abs=1e-2)


def test_constant_and_nan_are_refused():
    with pytest.raises(DataError, match="constant over 20 samples"):
        Capacity().measure(torch.full((20, 4), 1000.1))
    rows = gaussian(power_law())
    rows[5, 5] = torch.nan
    with pytest.raises(DataError, match="1 of 160000 activations"):
        Capacity().measure(rows)
    with pytest.raises(DataError, match="at least 2 samples"):
        Capacity().measure(torch.ones(1, 4))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"step": 1.0, "relative_step": 1.0}, "step and relative_step say the same"),
        ({"noise": 1.0, "snr": 1.0}, "noise and snr say the same"),
        ({"step": 0.0}, "step must be positive and finite, and it is 0"),
        ({"snr": -1.0}, "snr must be positive"),
        ({"noise": float("nan")}, "noise must be positive"),
        ({"relative_step": float("inf")}, "relative_step must be positive"),
        ({"exponent": -1.0}, "exponent must be at least 0"),
        ({"dropout": 1.5}, "dropout must be at least 0 and at most 1"),
        ({"bits": "many"}, "bits must be a number"),
        ({"ranks": (9, 3)}, "are no range"),
        ({"fit": "hubber"}, "did you mean 'huber'"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, said):
    with pytest.raises(DataError, match=said):
        Capacity(**settings)


# -- as a metric -----------------------------------------------------------------------------------


def test_spectrum_and_capacity_share_one_covariance():
    statistics = Statistics([Spectrum(), Capacity()], [Site("x")])
    statistics.receive("x", Activations(gaussian(power_law()), ("batch", "feature")))
    spectrum, capacity = (
        statistics.accumulators("x", label)["covariance"] for label in ("spectrum", "capacity")
    )
    assert spectrum is capacity
    kinds = [key.split("/")[1].split("(")[0] for key in statistics.state()]
    assert kinds.count("covariance") == len(spectrum.state())
    result = statistics.compute("x", statistics.metrics[1])
    np.testing.assert_array_equal(
        result.eigenvalues, statistics.compute("x", statistics.metrics[0]).eigenvalues
    )
    other = Statistics([Spectrum(), Capacity(precision="float32")], [Site("x")])
    kept = (other.accumulators("x", label)["covariance"] for label in ("spectrum", "capacity"))
    assert len({id(accumulator) for accumulator in kept}) == 2


def test_batches_do_not_matter():
    rows = gaussian(power_law())
    metric = Capacity()
    covariance = metric.accumulators()
    for part in rows.split(333):
        covariance["covariance"].update(Activations(part, ("batch", "feature")))
    streamed = metric.compute(covariance, Site("x"))
    np.testing.assert_allclose(bits(streamed), bits(metric.measure(rows)), rtol=1e-9)


def test_analysis_saves_loads_and_draws(tmp_path):
    values = {"a": gaussian(power_law()), "b": gaussian(np.ones(WIDTH))}
    analysis = pc.measure(values, [Capacity(dropout=0.1), Spectrum()])
    analysis.save(tmp_path / "run")
    again = Analysis.load(tmp_path / "run")
    assert again["a", "capacity"].scalars() == analysis["a", "capacity"].scalars()
    frame = again.to_dataframe()
    assert frame["capacity.redundancy"][0] > 10 * abs(frame["capacity.redundancy"][1])
    analysis.plot("capacity")
    from_name = pc.measure({"a": values["a"]}, ["capacity"])
    assert from_name["a", "capacity"].redundancy == analysis["a", "capacity"].redundancy


def test_positions_as_features_cost_no_square_matrix():
    batch = torch.as_tensor(np.random.default_rng(0).standard_normal((6, 100, 400)))
    result = Capacity(positions="features", exponent=1.0).measure(batch)
    assert (result.width, result.n_samples) == (40_000, 6)  # the matrix would have 13 GB
    variances = batch.reshape(6, -1).var(dim=0).numpy()
    assert result.unit_entropy == pytest.approx(gaussian_entropy(variances, result.step))
