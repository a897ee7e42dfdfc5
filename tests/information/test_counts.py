"""Counts of labels: nothing where nothing is shared, the truth where something is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import digamma

from polycode_plugins.errors import DataError
from polycode_plugins.information import estimate, plug_in
from polycode_plugins.information.counts import entropy
from polycode_plugins.information.samples import Floats
from polycode_plugins.testing.reference.generators import labels
from polycode_plugins.testing.reference.oracles import discrete_information


@pytest.mark.parametrize(("values", "samples"), [(5, 300), (30, 3000), (50, 3000), (30, 300)])
def test_independent_labels_share_nothing(values: int, samples: int) -> None:
    """Plug-in less Miller & Madow's bias says .02, .19 and .89 in the last three."""
    found = []
    for seed in range(12):
        pair = labels(np.random.default_rng(seed), samples, values, 1.0)
        found.append(plug_in(pair["x"], pair["y"], seed=seed))
    mean = np.mean([f.nats for f in found])
    spread = np.std([f.nats for f in found])
    assert abs(mean) < 4 * spread / math.sqrt(12)
    assert mean < 0.02
    # The error is that of the draws, not less and not far more.
    assert 0.8 * spread < np.mean([f.error for f in found]) < 3 * spread
    outside = sum(f.nats - f.slack[0] - 1.96 * f.error > 0 for f in found)
    assert outside <= 1


@pytest.mark.parametrize("noise", [0.1, 0.5, 0.9])
def test_noisy_labels(noise: float) -> None:
    pair = labels(np.random.default_rng(1), 20_000, 10, noise)
    share = np.full((10, 10), noise / 100) + np.eye(10) * (1 - noise) / 10
    found = plug_in(pair["x"], pair["y"])
    truth = discrete_information(share)
    assert abs(found.nats - truth) < 0.02
    assert abs(found.nats - truth) < 3 * found.error + sum(found.slack)


def test_a_sparse_table_stays_within_its_slack() -> None:
    """Each x has 5 of 50 y: the shuffled level is far too much to take off, and that is said."""
    rng = np.random.default_rng(2)
    x = rng.integers(50, size=2000)
    y = (x + rng.integers(5, size=2000)) % 50
    found, truth = plug_in(x, y), math.log(10)
    assert found.nats - found.slack[0] < truth < found.nats + found.slack[1] + 2 * found.error
    assert found.slack[1] > 0.01
    assert found.chance is not None
    assert found.chance > 0.05


def test_what_empty_cells_leave_of_the_bias_is_in_the_slack() -> None:
    """The cells off the diagonal hold .1 of a sample each: 3% too much, and the truth within."""
    same = 1 - 0.1 + 0.1 / 50
    truth = math.log(50) + same * math.log(same) + 49 * 0.002 * math.log(0.002)
    inside, values = 0, []
    for seed in range(10):
        pair = labels(np.random.default_rng(seed), 3000, 50, 0.1)
        found = estimate(pair["x"], pair["y"], estimators=["ksg"], seed=seed)
        inside += found.interval[0] < truth < found.interval[1]
        values.append(found.nats)
    assert inside >= 9
    assert np.mean(values) > truth + 0.03


def test_a_renaming_tells_the_whole_entropy() -> None:
    x = np.random.default_rng(3).integers(6, size=5000)
    found = plug_in(x, (x * 5 + 1) % 6)
    assert found.nats == pytest.approx(entropy(x), abs=1e-3)


def test_labels_that_hardly_repeat_are_refused() -> None:
    x, y = np.random.default_rng(4).integers(5000, size=(2, 1000))
    with pytest.raises(DataError, match="shuffled pairs say"):
        estimate(x, y, estimators=["ksg"])


def test_a_deep_chance_level_is_a_warning() -> None:
    x, y = np.random.default_rng(5).integers(60, size=(2, 1000))
    found = estimate(x, y, estimators=["ksg"])
    assert found.interval[0] == 0
    assert any("shuffled pairs" in w for w in found.warnings)


def test_values_so_few_that_they_are_counted() -> None:
    """Floats on two grids of few values: neighbours would smooth over the cells."""
    rng = np.random.default_rng(6)
    x = rng.integers(3, size=(4000, 1)).astype(float)
    y = np.where(rng.random((4000, 1)) < 0.4, rng.integers(3, size=(4000, 1)), x) ** 2
    found = estimate(x, y, estimators=["gaussian", "ksg"])
    share = np.full((3, 3), 0.4 / 9) + np.eye(3) * 0.6 / 3
    assert found.recommended == "ksg"
    assert abs(found.nats - discrete_information(share)) < 0.03
    itself = estimate(x, x, estimators=["ksg"])  # finite, since the values are few
    assert itself.nats == pytest.approx(math.log(3), abs=0.01)


def test_the_slack_reaches_down_by_twice_what_the_simpler_correction_says_more() -> None:
    """Written out over the table, where neither correction reaches the truth: deep in no cell."""
    pair = labels(np.random.default_rng(0), 3000, 50, 0.1)
    table = np.zeros((50, 50))
    np.add.at(table, (pair["x"], pair["y"]), 1)

    def grassberger(n: Floats) -> Floats:
        return digamma(n) + (-1.0) ** n / 2 * (digamma((n + 1) / 2) - digamma(n / 2))

    def said(log: Callable[[Floats], Floats]) -> float:
        cells, x, y = table[table > 0], table.sum(1), table.sum(0)
        sums = [(n * log(n)).sum() / 3000 for n in (cells, x, y)]
        return float(sums[0] + log(np.array([3000.0]))[0] - sums[1] - sums[2])

    more = said(digamma) - said(grassberger)
    found = plug_in(pair["x"], pair["y"], seed=0)
    assert more > 0.01
    assert found.slack[0] == pytest.approx(2 * more, abs=1e-9)
