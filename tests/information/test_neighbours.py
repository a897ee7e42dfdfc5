"""Neighbours against their definition by brute force, where distances tie and where none do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import digamma

from polycode_plugins.errors import DataError
from polycode_plugins.information import Estimate, ksg, neighbours, ross
from polycode_plugins.information.neighbours import Terms, above_chance
from polycode_plugins.information.samples import Floats, Labels
from polycode_plugins.information.transforms import uneven
from polycode_plugins.testing.reference.generators import correlated, distorted


def distances(values: Floats) -> Floats:
    """Chebyshev, [samples, samples]."""
    return np.abs(values[:, None] - values[None]).max(-1)


def nearer(apart: Floats, radius: Floats) -> Labels:
    """How many lie strictly nearer, the sample itself among them; at radius 0 its equals."""
    return np.where(radius > 0, (apart < radius[:, None]).sum(1), (apart == 0).sum(1))


def by_definition(x: Floats, y: Floats, k: int) -> float:
    rng = np.random.default_rng(0)
    dx, dy = distances(uneven(x, rng)), distances(uneven(y, rng))
    both = np.maximum(dx, dy)
    radius = np.sort(both, axis=1)[:, k]
    counts = [digamma(nearer(d, radius)).mean() for d in (both, dx, dy)]
    return float(counts[0] + digamma(len(x)) - counts[1] - counts[2])


@pytest.mark.parametrize("how", ["", "relu", "rounded 0", "quantised 2"])
@pytest.mark.parametrize("width", [1, 2])
def test_ksg_is_its_definition(how: str, width: int) -> None:
    pair = correlated(np.random.default_rng(1), 300, width, 0.5, x=how, y=how)
    assert ksg(pair["x"], pair["y"], neighbours=5).nats == pytest.approx(
        by_definition(pair["x"], pair["y"], 5), abs=1e-12
    )


@pytest.mark.parametrize("searched", [0, 15_000])
@pytest.mark.parametrize("width", [2, 3, 5])
@pytest.mark.parametrize("how", ["", "relu"])
def test_a_tree_and_ranks_count_what_lies_within(
    monkeypatch: pytest.MonkeyPatch, how: str, width: int, searched: int
) -> None:
    monkeypatch.setattr(neighbours, "SEARCHED", searched)
    rng = np.random.default_rng(4)
    values = distorted(rng.normal(size=(700, width)), how)
    rows, radius = rng.choice(700, 400, replace=False), rng.exponential(0.7, 400)
    counts = (distances(values)[rows] <= radius[:, None]).sum(1)
    assert np.array_equal(neighbours._within(values, rows, radius), counts)


@pytest.mark.parametrize("how", ["", "relu", "rounded 0"])
def test_ross_is_its_definition(how: str) -> None:
    rng = np.random.default_rng(2)
    x, y = distorted(rng.normal(size=(200, 2)), how), rng.integers(4, size=200)
    apart = distances(uneven(x, np.random.default_rng(0)))
    own = np.where(y[:, None] == y[None], apart, np.inf)
    radius = np.sort(own, axis=1)[:, 5]
    local = digamma(200) - digamma(np.bincount(y)[y]) + digamma(nearer(own, radius))
    expected = (local - digamma(nearer(apart, radius))).mean()
    assert ross(x, y, neighbours=5).nats == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_neighbours_on_gaussians(rho: float) -> None:
    pair = correlated(np.random.default_rng(3), 4000, 1, rho)
    assert abs(ksg(pair["x"], pair["y"]).nats + 0.5 * np.log(1 - rho**2)) < 0.05


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ("relu", "relu"),
        ("rounded 1", "rounded 1"),
        ("", "quantised 2"),
        ("", "quantised 3"),
        ("", "quantised 4"),
        ("quantised 2", "quantised 2"),
        ("quantised 1", "quantised 1"),
        ("", "quantised 1"),
        ("rounded 0", "rounded 0"),
        ("bfloat16", "bfloat16"),
    ],
)
@pytest.mark.parametrize("width", [1, 2, 4, 6])
def test_ties_tell_nothing_of_independent_values(x: str, y: str, width: int) -> None:
    """With k as asked they come out up to .5, on even steps up to 4."""
    pair = correlated(np.random.default_rng(3), 1500, width, 0.0, x=x, y=y)
    assert abs(ksg(pair["x"], pair["y"]).nats) < 0.035


def test_uneven_gaps_lose_nothing() -> None:
    rng = np.random.default_rng(5)
    x = np.hstack([np.round(rng.normal(size=(500, 1)), 1), rng.normal(size=(500, 1))])
    y = uneven(x, rng)
    assert np.array_equal(x[:, 1], y[:, 1])
    old, new = (np.unique(v[:, 0], return_inverse=True)[1] for v in (x, y))
    assert np.array_equal(old, new)
    gaps = np.diff(np.unique(y[:, 0]))
    assert len(np.unique(gaps.round(9))) == len(gaps)
    assert np.abs(y[:, 0] - x[:, 0]).max() < 0.3


def test_a_label_beside_zeros() -> None:
    """Planted: the label is told by the sign, of which the ReLU leaves half a bit and more."""
    rng = np.random.default_rng(4)
    z = rng.normal(size=(3000, 1))
    told = ross(np.maximum(z, 0), (z[:, 0] > 0).astype(np.int64))
    assert abs(told.nats - np.log(2)) < 0.02
    assert abs(ross(np.maximum(z, 0), rng.integers(3, size=3000)).nats) < 0.02


def test_what_shuffled_pairs_say_is_taken_off() -> None:
    y = np.arange(100)

    def terms(order: Labels) -> Terms:  # planted: 0.3 too high
        return Terms(np.full(100, 1.3 if np.array_equal(order, y) else 0.3), y)

    found = above_chance(Estimate(1.3, 0.01), terms, 100, seed=0)
    assert found.nats == pytest.approx(1.0)
    assert found.chance == pytest.approx(0.3)
    assert found.error == pytest.approx(0.01)


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("x", ["", "relu"])
def test_the_error_is_that_of_the_draws(x: str, width: int) -> None:
    """The spread of the terms alone is 1.4 times too small for one coordinate each."""
    found = []
    for seed in range(30):
        pair = correlated(np.random.default_rng(seed), 1000, width, 0.0, x=x)
        found.append(ksg(pair["x"], pair["y"]))
    spread = np.std([f.nats for f in found])
    assert 0.85 < np.mean([f.error for f in found]) / spread < 1.5


def test_a_label_that_occurs_once_counts_for_nothing() -> None:
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(201, 2)), np.append(rng.integers(3, size=200), 3)
    assert ross(x, y).nats == pytest.approx(ross(x[:-1], y[:-1]).nats, abs=1e-12)
    with pytest.raises(DataError, match="occurs once"):
        ross(x, np.arange(201))
    with pytest.raises(DataError, match="cannot be found"):
        ksg(x[:10], x[:10], neighbours=10)
    assert np.isfinite(ksg(x[:11], x[11:22], neighbours=10).nats)
