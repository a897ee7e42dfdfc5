"""Differences between kinds of units: intervals that cover, tests that reject as they say."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from planted import planted_comparison

from polycode_plugins.explainers.comparison.contrasts import contrasts
from polycode_plugins.explainers.comparison.plot import interval_of_mean
from polycode_plugins.explainers.comparison.statistics import adjusting, agreement, resampling
from polycode_plugins.explainers.comparison.statistics.samples import Sample


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(resampling, "BOOTSTRAPS", 400)
    monkeypatch.setattr(resampling, "PERMUTATIONS", 300)
    monkeypatch.setattr(adjusting, "BOOTSTRAPS", 200)


def kind(scores, name, covariates=None):
    """The units of a kind at one site, called `name` and their number."""
    unknown = np.full((len(scores), 2), np.nan)
    names = tuple(f"{name} {i}" for i in range(len(scores)))
    return Sample(np.asarray(scores), unknown if covariates is None else covariates, names)


def over_all(pairs, seed=0):
    return contrasts(pairs, "a", "b", "correlation", seed=seed)[-1]


@pytest.mark.parametrize(("n", "least"), [(6, 92), (20, 92)])
@pytest.mark.usefixtures("quick")
def test_the_interval_covers_for_few_units_and_skewed_scores(n, least):
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        # Piled up below 1, as the scores of units that are easy to explain; the mean is 6 / 6.8.
        pair = kind(rng.beta(6, 0.8, n), "a"), kind(rng.normal(0.5, 0.1, n), "b")
        low, high = over_all({"s": pair}, seed).interval
        covered += low <= 6 / 6.8 - 0.5 <= high
    assert covered >= least


@pytest.mark.usefixtures("quick")
def test_unequal_spread_in_unequal_numbers_is_no_difference():
    rejected = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        pair = kind(rng.normal(0, 0.1, 40), "a"), kind(rng.normal(0, 0.3, 10), "b")
        rejected += over_all({"s": pair}, seed).p_value < 0.05
    assert rejected <= 11  # 5 at 5%; a test of the bare difference rejects 25


@pytest.mark.usefixtures("quick")
def test_a_unit_that_is_read_at_six_sites_is_one_unit():
    covered = rejected = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        own = rng.normal(size=(2, 15, 1)) + 0.7 * rng.normal(size=(2, 15, 6))
        pairs = {f"s{i}": (kind(own[0, :, i], "a"), kind(own[1, :, i], "b")) for i in range(6)}
        made = over_all(pairs, seed)
        covered += made.interval[0] <= 0 <= made.interval[1]
        rejected += made.p_value < 0.05
    assert covered >= 53  # 57 at 95%; 36 where each is taken for six
    assert rejected <= 7


@pytest.mark.usefixtures("quick")
def test_both_signs_of_a_unit_are_one_unit():
    comparison = planted_comparison(units=["neuron", "projection"], n_units=4, signs="both")
    assert sum(u.kind == "neuron" for u in comparison) == 8
    names = comparison._sample("read", "neuron", "correlation", "trained").names
    assert len(set(names)) == 4
    rng = np.random.default_rng(0)
    once = kind(rng.normal(size=8), "a"), kind(rng.normal(size=8), "b")
    twice = tuple(
        Sample(np.tile(s.scores, 2), np.tile(s.covariates, (2, 1)), s.names * 2) for s in once
    )
    widths = [np.ptp(over_all({"s": pair}).interval) for pair in (once, twice)]
    assert widths[1] == pytest.approx(widths[0], rel=1e-6)


@pytest.mark.usefixtures("quick")
def test_a_site_has_its_numbers_whatever_other_sites_there_are():
    rng = np.random.default_rng(0)
    pairs = {
        f"s{i}": (
            kind(rng.normal(size=9), "a", rng.normal(size=(9, 2))),
            kind(rng.normal(size=9), "b", rng.normal(size=(9, 2))),
        )
        for i in range(3)
    }
    forward = {c.site: c for c in contrasts(pairs, "a", "b", "correlation")}
    turned = contrasts(dict(reversed(pairs.items())), "a", "b", "correlation")
    assert all(forward[c.site] == c for c in turned[:-1])
    assert turned[-1].interval == pytest.approx(forward[""].interval)


def planted(rng, n, apart, true, curved=False):
    """Scores of log kurtosis, and `true` on top for the first kind, whose kurtosis lies higher."""
    pair = []
    for name, shift, extra in (("a", apart, true), ("b", 0.0, 0.0)):
        kurtosis = rng.normal(1.5 + shift, 0.6, n)
        sparsity = 1 / (1 + np.exp(2 - kurtosis + rng.normal(0, 0.5, n)))
        scores = 0.5 * np.tanh(kurtosis - 1.5) if curved else 0.15 * kurtosis
        scores = scores + extra + rng.exponential(0.1, n)
        pair.append(kind(scores, name, np.column_stack([kurtosis, sparsity])))
    return tuple(pair)


@pytest.mark.parametrize("true", [0.0, 0.1])
@pytest.mark.usefixtures("quick")
def test_the_adjusted_difference_is_what_kurtosis_leaves(true):
    found, raw, covered = [], [], 0
    for seed in range(60):
        made = over_all({"s": planted(np.random.default_rng(seed), 30, 0.5, true)}, seed)
        raw.append(made.difference)
        found.append(made.adjusted)
        covered += made.adjusted_interval[0] <= true <= made.adjusted_interval[1]
    assert np.mean(found) == pytest.approx(true, abs=0.015)
    assert np.mean(raw) == pytest.approx(true + 0.075, abs=0.015)
    assert covered >= 53


@pytest.mark.usefixtures("quick")
def test_kinds_that_share_no_kurtosis_are_not_compared_at_equal_kurtosis():
    rng = np.random.default_rng(0)
    # A line through these finds a large difference that is none: beyond 4 the score is level.
    pair = planted(rng, 40, 5.0, 0.0, curved=True)
    made = over_all({"s": pair})
    assert made.overlap < 0.05
    assert made.adjusted is None
    assert made.adjusted_interval is None
    assert made.difference == pytest.approx(0.5, abs=0.15)  # the rest is as ever
    near = over_all({"s": planted(rng, 40, 0.5, 0.0, curved=True)})
    assert near.overlap > 0.25
    assert near.adjusted is not None
    # Each covariate by itself is shared, the two together are not.
    x = rng.normal(size=40)
    parted = [
        kind(x, n, np.column_stack([x, x + step + 0.01 * rng.normal(size=40)]))
        for n, step in (("a", 0.2), ("b", 0.0))
    ]
    assert over_all({"s": tuple(parted)}).overlap == 0


def sharing(k):
    """Two kinds of 20 units, of which the k highest of one lie among the k lowest of the other."""
    x, level = np.arange(20.0), np.tile([0.0, 1.0, 1.0, 0.0], 5)
    rng = np.random.default_rng(k)
    return tuple(
        kind(rng.normal(size=20), name, np.column_stack([x + shift, level]))
        for name, shift in (("a", 0), ("b", 20 - k))
    )


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("k", "enough"), [(2, False), (4, False), (6, True), (14, True)])
def test_a_quarter_of_the_units_has_to_be_shared_for_an_adjusted_difference(k, enough):
    made = over_all({"s": sharing(k)})
    assert made.overlap == pytest.approx(k / 20)
    assert (made.adjusted is not None) == enough
    assert (made.adjusted_interval is not None) == enough


@pytest.mark.usefixtures("quick")
def test_two_units_tell_no_interval_and_equal_scores_have_none_between():
    made = over_all({"s": (kind([0.1, 0.2], "a"), kind([0.3, 0.5], "b"))})
    assert made.interval is None
    assert made.p_value > 0.2  # the smallest of the six orders, and its mirror
    level = over_all({"s": (kind([0.1] * 5, "a"), kind([0.1] * 5, "b"))})
    assert (level.difference, level.p_value, level.effect) == (0, 1, None)
    assert level.interval == pytest.approx((0, 0))
    assert interval_of_mean([0.3, 0.4], 0) is None
    low, high = interval_of_mean([0.3, 0.4, 0.2, 0.5, 0.6, 0.1], 0)
    assert low < 0.35 < high


def sample(scores, covariates=None):
    scores = np.asarray(scores, dtype=np.float64)
    if covariates is None:
        covariates = np.random.default_rng(len(scores)).normal(size=(len(scores), 2))
    return Sample(scores, np.asarray(covariates, dtype=np.float64))


@pytest.mark.usefixtures("quick")
def test_a_planted_difference_is_found_and_its_interval_covers():
    covered, rejected, false = 0, 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        pairs = {
            f"layer {i}": (
                sample(rng.normal(0.3 + 0.1 * i, 0.1, 20)),
                sample(rng.normal(0.2 + 0.1 * i, 0.1, 20)),
            )
            for i in range(3)
        }
        last = contrasts(pairs, "a", "b", "correlation", seed=seed)[-1]
        assert last.interval is not None
        covered += last.interval[0] <= 0.1 <= last.interval[1]
        rejected += last.p_value < 0.05
        null = {k: (a, sample(a.scores + rng.normal(0, 0.1, 20))) for k, (a, _) in pairs.items()}
        false += contrasts(null, "a", "b", "correlation", seed=seed)[-1].p_value < 0.05
    assert covered >= 53  # of 60 at 95%
    assert rejected >= 57
    assert false <= 7


def test_a_difference_that_is_the_covariates_is_gone_when_adjusted():
    rng = np.random.default_rng(0)
    first = np.column_stack([rng.normal(2, 1, 80), rng.normal(size=80)])
    second = np.column_stack([rng.normal(0, 1, 80), rng.normal(size=80)])
    made = contrasts(
        {"l": (sample(0.1 * first[:, 0], first), sample(0.1 * second[:, 0], second))},
        "a",
        "b",
        "correlation",
    )[0]
    assert made.difference == pytest.approx(0.2, abs=0.05)
    assert made.p_value < 0.001
    assert made.adjusted == pytest.approx(0, abs=1e-9)


def test_effect_sizes_are_those_of_the_definition():
    a, b = np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0, 3.0])
    made = contrasts({"l": (sample(a), sample(b))}, "a", "b", "correlation")[0]
    pooled = math.sqrt((2 * a.var(ddof=1) + 3 * b.var(ddof=1)) / 5)
    assert made.effect == pytest.approx((a.mean() - b.mean()) / pooled)
    wins = np.mean([[np.sign(x - y) for y in b] for x in a])
    assert made.dominance == pytest.approx(wins)


def test_undefined_scores_are_left_out_and_counted_and_nothing_stays_nothing():
    made = contrasts({"l": (sample([0.5, math.nan]), sample([math.nan]))}, "a", "b", "auprc")
    assert made[0].n == (1, 0)
    assert made[0].undefined == (1, 1)
    assert made[0].difference is None
    assert made[-1].means == (0.5, None)


@pytest.mark.usefixtures("quick")
def test_an_interval_ends_where_a_difference_of_scores_does():
    # Five equal scores and one far off: few draws have a spread, and theirs is tiny.
    a, b = np.array([1, 1, 1, 1, 1 - 1e-9, 0.2]), 1 - np.arange(6) * 1e-9
    for score, bound in (("correlation", 2), ("auprc", 1)):
        made = contrasts({"s": (kind(a, "a"), kind(b, "b"))}, "a", "b", score)[-1]
        assert made.interval is None or -bound <= made.interval[0] <= made.interval[1] <= bound
    pair = kind([1, 0, 0.9], "a"), kind([0, 1, 0.1], "b")
    assert contrasts({"s": pair}, "a", "b", "auprc")[-1].interval is None  # it would be everything
    low, high = interval_of_mean([1.0, 0.99, 0.98, 0.9], 0)
    assert low < 0.96 < high == 1


@pytest.mark.usefixtures("quick")
def test_one_site_is_all_sites_where_no_other_has_both_kinds():
    rng = np.random.default_rng(1)
    pair = (
        kind(rng.normal(0.6, 0.2, 10), "a", rng.normal(size=(10, 2))),
        kind(rng.normal(0.5, 0.2, 10), "b", rng.normal(size=(10, 2))),
    )
    alone = contrasts({"s": pair}, "a", "b", "correlation")
    assert dataclasses.replace(alone[-1], site="s") == alone[0]
    other = kind(rng.normal(size=4), "a"), kind(np.full(4, np.nan), "b")
    for pairs in ({"s": pair, "t": other}, {"t": other, "s": pair}):
        made = {c.site: c for c in contrasts(pairs, "a", "b", "correlation")}
        for field in ("difference", "interval", "p_value", "effect", "adjusted_interval"):
            assert getattr(made["s"], field) == getattr(made[""], field)
        assert made[""].n == (14, 10)


@pytest.mark.usefixtures("quick")
def test_the_units_that_an_adjusted_difference_is_about_are_counted_and_others_named():
    rng = np.random.default_rng(0)
    for missing, told in ((0, True), (6, True), (10, True), (11, False), (15, False)):
        scores = np.r_[np.full(missing, 0.9), rng.normal(0.3, 0.1, 20 - missing)]
        known = rng.normal(size=(20, 2))
        known[:missing, 0] = np.nan
        others = kind(rng.normal(0.3, 0.1, 20), "b", rng.normal(size=(20, 2)))
        made = over_all({"s": (kind(scores, "a", known), others)})
        assert made.n == (20, 20)
        assert made.adjusted_n == (20 - missing, 20)
        assert made.uncovered == tuple(f"s: a {i}" for i in range(missing))
        assert (made.adjusted is not None) == told


def paired(rng, n, true):
    """Units of which each pair shares most of its score."""
    shared = rng.normal(0, 0.3, n)
    pairs = tuple(f"pair {i}" for i in range(n))
    return tuple(
        dataclasses.replace(kind(shared + extra + rng.normal(0, 0.05, n), name), pairs=pairs)
        for name, extra in (("a", true), ("b", 0.0))
    )


@pytest.mark.usefixtures("quick")
def test_pairs_are_compared_within_them():
    covered = rejected = false = blind = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        pair = paired(rng, 15, 0.05)
        made = over_all({"s": pair}, seed)
        covered += made.interval[0] <= 0.05 <= made.interval[1]
        rejected += made.p_value < 0.05
        loose = tuple(dataclasses.replace(x, pairs=()) for x in pair)
        blind += over_all({"s": loose}, seed).p_value < 0.05
        false += over_all({"s": paired(rng, 15, 0.0)}, seed).p_value < 0.05
    assert covered >= 53
    assert rejected >= 35
    assert blind <= 8  # without the pairing the units' own spread hides it
    assert false <= 7


@pytest.mark.usefixtures("quick")
def test_a_pair_of_which_one_has_no_score_is_left_out_whole():
    a, b = paired(np.random.default_rng(0), 8, 0.1)
    b = dataclasses.replace(b, scores=np.r_[np.nan, b.scores[1:]])
    a = Sample(
        np.r_[a.scores, 9.0],
        np.full((9, 2), np.nan),
        (*a.names, "a 99"),
        (*a.pairs, "pair 99"),
    )
    made = over_all({"s": (a, b)})
    assert made.pairs == 7
    assert made.n == (7, 7)
    assert made.undefined == (2, 1)
    assert made.difference == pytest.approx(float((a.scores[1:8] - b.scores[1:]).mean()))
    # Both signs of a unit are one of its pair.
    twice = Sample(np.tile(a.scores, 2), np.tile(a.covariates, (2, 1)), a.names * 2, a.pairs * 2)
    assert over_all({"s": (twice, b)}).difference == pytest.approx(made.difference)
    assert over_all({"s": (twice, b)}).pairs == 7


@pytest.mark.usefixtures("quick")
def test_sites_that_disagree_are_told_from_those_that_do_not(monkeypatch):
    monkeypatch.setattr(agreement, "BOOTSTRAPS", 300)

    def sites(rng, apart, own=0.0):
        shared = own * rng.normal(size=(2, 15))
        return {
            f"s{i}": (
                kind(rng.normal(0.5 + apart * (i - 1), 0.1, 15) + shared[0], "a"),
                kind(rng.normal(0.4, 0.1, 15) + shared[1], "b"),
            )
            for i in range(3)
        }

    false = found = dependent = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        false += over_all(sites(rng, 0.0), seed).disagreement < 0.05
        dependent += over_all(sites(rng, 0.0, 0.2), seed).disagreement < 0.05
        found += over_all(sites(rng, 0.1), seed).disagreement < 0.05
    assert false <= 7
    assert dependent <= 7
    assert found >= 45
    assert over_all({"s0": sites(rng, 0.1)["s0"]}).disagreement is None
