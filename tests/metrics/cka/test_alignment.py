"""The estimator: equal to sums over all tuples, right on planted codes, intervals that hold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from polycode_plugins.errors import DataError
from polycode_plugins.metrics.cka import alignment
from polycode_plugins.metrics.cka.alignment import BLOCK, GROUPS, align, deal


def drawn(samples: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, samples, width]).standard_normal((samples, width))


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values).float()


def turned(values: np.ndarray, seed: int = 9) -> np.ndarray:
    return values @ np.linalg.qr(drawn(values.shape[1], values.shape[1], seed))[0]


def by_tuples(x: np.ndarray, y: np.ndarray, of: np.ndarray) -> float:
    """The estimate of |S_xy|^2, term by term over samples of distinct groups."""
    k, m = x @ x.T, y @ y.T
    names = range(len(of))

    def mean(size: int, term) -> float:
        kept = [i for i in itertools.permutations(names, size) if len({of[j] for j in i}) == size]
        return float(np.mean([term(*i) for i in kept]))

    return (
        mean(2, lambda a, b: k[a, b] * m[a, b])
        + mean(4, lambda a, b, c, d: k[a, b] * m[c, d])
        - 2 * mean(3, lambda a, b, c: k[a, b] * m[a, c])
    )


def cka_by_tuples(x: np.ndarray, y: np.ndarray, of: np.ndarray) -> float:
    return by_tuples(x, y, of) / (by_tuples(x, x, of) * by_tuples(y, y, of)) ** 0.5


def test_it_is_the_mean_over_tuples_of_distinct_groups_and_its_jackknife(monkeypatch):
    of = np.random.default_rng(0).permutation(np.repeat(np.arange(6), [1, 2, 1, 3, 2, 1]))
    x, y = drawn(10, 4) + 3, drawn(10, 3)
    sites = tensor(x), tensor(y)
    x, y = x - x.mean(0), y - y.mean(0)
    value = cka_by_tuples(x, y, of)
    left = np.array([cka_by_tuples(x[of != g], y[of != g], of[of != g]) for g in range(6)])
    error = (5 / 6 * ((left - left.mean()) ** 2).sum()) ** 0.5
    for block in (BLOCK, 40, 1):  # all groups at once, two of one sample at most, one by one
        monkeypatch.setattr(alignment, "BLOCK", block)
        found = align(sites, of)
        assert found.values[0, 1] == pytest.approx(value, abs=1e-5)
        assert found.errors[0, 1] == pytest.approx(error, rel=1e-4)
        assert np.array_equal(found.values, found.values.T)
        assert np.diagonal(found.values) == pytest.approx(1)
        assert found.worth == pytest.approx(10**2 / 20)


def test_with_one_sample_in_each_group_it_is_songs_estimate():
    n = 40
    x, y = drawn(n, 6), turned(drawn(n, 6))[:, :4] + drawn(n, 4, 1)
    k, m = (v @ v.T * (1 - np.eye(n)) for v in (x - x.mean(0), y - y.mean(0)))

    def song(a: np.ndarray, b: np.ndarray) -> float:
        ones = np.ones(n)
        return (
            np.trace(a @ b)
            + (ones @ a @ ones) * (ones @ b @ ones) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * ones @ a @ b @ ones
        )

    found = align([tensor(x), tensor(y)], np.arange(n))
    assert found.values[0, 1] == pytest.approx(song(k, m) / (song(k, k) * song(m, m)) ** 0.5)
    centred = [v - v.mean(0) for v in (x, y)]
    cross = [np.square(a.T @ b).sum() for a, b in ((0, 1), (0, 0), (1, 1))
             for a, b in [(centred[a], centred[b])]]  # fmt: skip
    assert found.naive[0, 1] == pytest.approx(cross[0] / (cross[1] * cross[2]) ** 0.5, rel=1e-5)


def test_a_rotation_and_a_scale_change_nothing():
    x = drawn(300, 20)
    found = align([tensor(x), tensor(1000 * turned(x) - 70)], deal(np.arange(300)))
    assert found.values[0, 1] == pytest.approx(1, abs=1e-6)
    assert found.errors[0, 1] < 1e-6


def test_independent_codes_have_none_with_fewer_samples_than_units():
    pairs = [align([tensor(drawn(60, 400, s)), tensor(drawn(60, 400, 100 + s))], np.arange(60))
             for s in range(30)]  # fmt: skip
    found = np.array([p.values[0, 1] for p in pairs])
    assert np.mean([p.naive[0, 1] for p in pairs]) > 0.8
    assert abs(found.mean()) < 3 * found.std() / 30**0.5
    assert found.std() < 0.03


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_mixtures_have_the_cka_of_the_population(share: float):
    """y = sqrt(r) x + sqrt(1 - r) z with x and z alike: |S_xy|^2 / (|S_xx| |S_yy|) = r."""
    law = np.arange(1.0, 61) ** -0.5
    found, inside = [], 0
    for seed in range(20):
        x, z = drawn(300, 60, seed) * law, drawn(300, 60, 50 + seed) * law
        y = turned(share**0.5 * x + (1 - share) ** 0.5 * z)
        one = align([tensor(x), tensor(y)], deal(np.arange(300)))
        found.append(one.values[0, 1])
        inside += abs(found[-1] - share) < 2 * one.errors[0, 1]
    assert abs(np.mean(found) - share) < 3 * np.std(found) / 20**0.5 + 0.002
    assert inside >= 16


def test_documents_whose_tokens_resemble_each_other_do_not_make_codes_alike():
    documents = np.repeat(np.arange(24), 20)
    found, apart = [], []
    for seed in range(10):
        codes = [
            tensor(drawn(480, 50, seed + s) + 2 * drawn(24, 50, 30 + seed + s)[documents])
            for s in (0, 1000)
        ]
        found.append(align(codes, deal(documents)).values[0, 1])
        apart.append(align(codes, np.arange(480) % GROUPS).values[0, 1])
    assert np.mean(apart) > 0.5  # what it is with tokens for independent
    assert abs(np.mean(found)) < 3 * np.std(found) / 10**0.5


def test_a_far_mean_takes_no_digits():
    x = drawn(200, 8)
    y = turned(x) + drawn(200, 8, 1)
    near = align([tensor(x), tensor(y)], deal(np.arange(200)))
    far = align([tensor(x + 1000), tensor(y)], deal(np.arange(200)))
    assert far.values[0, 1] == pytest.approx(near.values[0, 1], abs=1e-4)


def test_documents_are_dealt_whole_into_groups_of_like_sizes_in_any_order():
    rng = np.random.default_rng(0)
    documents = rng.permutation(np.repeat(rng.permutation(500), rng.integers(1, 30, 500)))
    groups = deal(documents)
    assert sorted(set(groups.tolist())) == list(range(GROUPS))
    for name in range(500):
        assert len(set(groups[documents == name].tolist())) == 1
    sizes = np.bincount(groups)
    assert sizes.max() < 1.1 * sizes.min()
    order = rng.permutation(len(documents))
    assert np.array_equal(deal(documents[order]), groups[order])
    assert len(set(deal(np.arange(7)).tolist())) == 7


def test_a_site_that_does_not_vary_is_like_nothing():
    flat = np.full((100, 3), 0.1)
    found = align([tensor(drawn(100, 3)), tensor(flat)], deal(np.arange(100)))
    assert np.isnan(found.values[1]).all()
    assert found.values[0, 0] == pytest.approx(1)


def test_four_groups_leave_nothing_to_leave_out():
    with pytest.raises(DataError, match="4 groups of samples are too few; at least 5"):
        align([tensor(drawn(40, 3))], np.arange(40) % 4)
