"""The panel on planted truths: closed forms recovered, nothing found where nothing is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from gaussian_pairs import gaussian_pair

from polycode_plugins.errors import DataError
from polycode_plugins.information import (
    AdditiveGaussian,
    AdditiveUniform,
    MutualInformation,
    Quantisation,
    estimate,
    mine,
    panel,
)
from polycode_plugins.information import channels as closed
from polycode_plugins.information.prepare import prepare
from polycode_plugins.information.samples import Estimate, Floats
from polycode_plugins.testing.reference.generators import correlated
from polycode_plugins.testing.reference.oracles import distorted_gaussian_information

FAST = ("gaussian", "ksg")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Critics are small: a second thread on a busy machine only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def sparse() -> tuple[MutualInformation, float]:
    x, y, truth = gaussian_pair([0.8, 0.8, 0, 0, 0], 5000, 11)
    return estimate(x, y, seed=1), truth


def test_five_by_five_sparse_gaussian_by_every_estimator() -> None:
    found, truth = sparse()
    assert abs(found.nats - truth) < 0.1 * truth
    for name in ("gaussian", "mine", "infonce", "smile"):
        assert abs(found.estimates[name] - truth) < 0.1 * truth, name
    assert found.nats <= found.estimates["gaussian"]
    assert found.interval[0] < truth < found.interval[1]
    assert found.spread == max(found.estimates.values()) - min(found.estimates.values())
    # The neighbours fail in ten dimensions, and that is said.
    assert any("disagree" in w and "KSG" in w for w in found.warnings)


def test_learning_curves_are_kept() -> None:
    found, _ = sparse()
    assert set(found.curves) == {"mine", "infonce", "smile"}
    steps = found.curves["mine"][:, 0]
    assert len(steps) >= 3
    assert (np.diff(steps) > 0).all()
    assert np.isfinite(found.curves["mine"]).all()


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.75, 0.95])
def test_one_by_one_gaussians(rho: float) -> None:
    x, y, truth = gaussian_pair([rho], 5000, 5)
    found = estimate(x, y, estimators=FAST)
    assert abs(found.nats - truth) < 0.05
    assert found.nats <= found.estimates["gaussian"]


def test_additive_uniform_noise_on_a_uniform() -> None:
    x = np.random.default_rng(2).uniform(size=10_000)
    found = estimate(x, x, estimators=FAST, channel=AdditiveUniform(0.1))
    truth = 0.1 - math.log(0.2)
    assert abs(found.nats - truth) < 0.05
    assert found.recommended == "ksg"  # a Gaussian does not suffice here
    wrapped = estimate(x, x, estimators=FAST, channel=AdditiveUniform(0.25, period=1.0))
    assert abs(wrapped.nats - closed.wrapped_uniform(0.25, 1.0)) < 0.05


def test_additive_gaussian_channel() -> None:
    x = torch.randn(10_000, 1, generator=torch.Generator().manual_seed(0)) * 2
    found = estimate(x, x, estimators=FAST, channel=AdditiveGaussian(1.0))
    assert abs(found.nats - closed.additive_gaussian(4.0, 1.0)) < 0.05
    assert "standard deviation 1" in str(found.channel)


def test_heavy_tails_go_by_ranks() -> None:
    """A Cauchy pair (bivariate t, one degree of freedom): 0.2242 nats; covariances say nothing."""
    rng = np.random.default_rng(7)
    z = rng.normal(size=(10_000, 2)) / np.sqrt(rng.chisquare(1, size=(10_000, 1)))
    found = estimate(z[:, :1], z[:, 1:], estimators=FAST)
    assert abs(found.nats - 0.2242) < 0.05
    assert any("heavy tails" in w for w in found.warnings)
    warped = estimate(np.sinh(z[:, :1] / 50), np.arctan(z[:, 1:]), estimators=FAST)
    assert abs(warped.nats - found.nats) < 1e-9  # ranks are all that counts


def test_binary_symmetric_channel_and_erasure() -> None:
    rng = np.random.default_rng(4)
    bit = rng.integers(2, size=20_000)
    flipped = bit ^ (rng.random(20_000) < 0.1)
    found = estimate(bit, flipped, estimators=["ksg"])
    assert abs(found.nats - closed.binary_symmetric(0.1)) < 0.01
    erased = np.where(rng.random(20_000) < 0.3, 2, bit)
    assert abs(estimate(bit, erased, estimators=["ksg"]).nats - 0.7 * math.log(2)) < 0.01
    assert closed.erasure(0.3) == pytest.approx(0.7 * math.log(2))


@pytest.mark.usefixtures("brief")
def test_erasure_by_critics() -> None:
    rng = np.random.default_rng(6)
    bit = rng.integers(2, size=4000)
    erased = np.where(rng.random(4000) < 0.3, 2, bit)
    found = estimate(bit, erased, estimators=["mine", "nwj"])
    for name, nats in found.estimates.items():
        assert abs(nats - 0.7 * math.log(2)) < 0.03, name


def test_quantisation() -> None:
    x = torch.rand(10_000, generator=torch.Generator().manual_seed(1))
    cells = Quantisation(2, 0.0, 1.0).cells(x)
    found = estimate(x, cells, estimators=["ksg"])
    assert abs(found.nats - closed.quantised_uniform(2)) < 0.05
    assert found.nats <= math.log(4) + 1e-3  # never above the entropy of the labels


@pytest.mark.usefixtures("brief")
def test_labels_and_separable_clusters() -> None:
    rng = np.random.default_rng(8)
    label = rng.integers(4, size=2000)
    values = rng.normal(size=(2000, 3)) + 12 * np.eye(4)[label][:, :3]
    found = estimate(label, values)
    assert abs(found.nats - math.log(4)) < 0.05
    shuffled = estimate(rng.permutation(label), values)
    assert shuffled.nats < 0.02


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("seed", [0, 1])
def test_independent_and_shuffled_give_nothing(seed: int) -> None:
    x, y, _ = gaussian_pair([0.9, 0.9], 2000, seed)
    found = estimate(x, np.random.default_rng(seed).permutation(y), seed=seed)
    assert found.nats < 0.02
    assert min(found.estimates.values()) >= 0
    assert any(v < 0 for v in found.unclipped.values()) or found.nats == 0


def test_seeds_decide_and_global_random_states_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mine, "TRAINING", mine.Training(steps=30))
    monkeypatch.setattr(mine, "REFINEMENT", mine.Training(steps=10, rate=1e-3))
    x, y, _ = gaussian_pair([0.6], 500, 1)
    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    one = estimate(x, y, estimators=["mine"], seed=3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    torch.manual_seed(6)
    assert estimate(x, y, estimators=["mine"], seed=3).unclipped == one.unclipped
    assert estimate(x, y, estimators=["mine"], seed=4).unclipped != one.unclipped


@pytest.mark.usefixtures("brief")
def test_dependent_samples_are_held_out_together() -> None:
    """Planted: every sample occurs 6 times. Apart, critics know the held-out ones by heart."""
    rng = np.random.default_rng(0)
    x, y = np.repeat(rng.normal(size=(2, 100, 4)), 6, axis=1)
    jitter = 1e-3 * rng.normal(size=(2, *x.shape))
    group = np.repeat(np.arange(100), 6)
    apart = estimate(x + jitter[0], y + jitter[1], estimators=["mine"])
    together = estimate(x + jitter[0], y + jitter[1], estimators=["mine"], groups=group)
    assert apart.nats > 0.5  # the fault that groups are there for
    assert together.nats < 0.1


def relu(seed: int, correlation: float, width: int) -> tuple[Floats, Floats]:
    pair = correlated(np.random.default_rng(seed), 2000, width, correlation, x="relu", y="relu")
    return pair["x"], pair["y"]


@pytest.mark.parametrize("estimators", [FAST, ("ksg",)])
def test_independent_zeros_are_no_information(estimators: tuple[str, ...]) -> None:
    """With ties counted as if there were none, four and four came out at .14 nats."""
    for seed in range(3):
        found = estimate(*relu(seed, 0.0, 4), estimators=estimators)
        assert found.nats < 0.03
        assert found.interval[0] == 0


def test_zeros_on_both_sides_are_no_gaussian() -> None:
    x, y = relu(0, 0.8, 1)
    found = estimate(x, y, estimators=FAST)
    truth = distorted_gaussian_information(0.8, "relu", "relu")
    assert found.recommended == "ksg"
    assert found.interval[0] < truth < found.interval[1]
    assert found.estimates["gaussian"] > 1.08 * truth  # what is not recommended, and why
    alone = estimate(x, y, estimators=["gaussian"])
    assert alone.recommended == "gaussian"


def test_what_only_neighbours_see_is_held_against_shuffled_pairs() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(3000, 2)) / np.sqrt(rng.chisquare(1, size=(3000, 1)))
    found = estimate(z[:, 0], z[:, 1], estimators=FAST)  # Cauchy pair, 0.2242
    assert found.recommended == "ksg"
    assert abs(found.nats - 0.2242) < 0.06
    assert any("disagree" in w for w in found.warnings)
    shuffled = estimate(z[:, 0], rng.permutation(z[:, 1]), estimators=FAST)
    assert shuffled.interval[0] == 0


def test_infinite_information_is_refused_or_flagged() -> None:
    x = np.random.default_rng(1).normal(size=(2000, 2))
    with pytest.raises(DataError, match="infinite"):
        estimate(x, x @ np.array([[1.0, 2.0], [0.5, -1.0]]))
    with pytest.raises(DataError, match="infinite"):
        estimate(x[:, 0], np.exp(x[:, 0]), estimators=FAST)
    smooth = estimate(x[:, 0], np.sin(5 * x[:, 0]), estimators=FAST)
    assert any("without noise" in w for w in smooth.warnings)


def test_much_information_is_flagged() -> None:
    x = np.random.default_rng(1).uniform(size=1000)
    found = estimate(x, x, estimators=["ksg"], channel=AdditiveUniform(1e-3))
    assert any("ln N" in w for w in found.warnings)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((50, 2)), np.zeros(49), "paired"),
        (np.full(50, np.nan), np.zeros(50), "NaN"),
        (np.zeros(8), np.zeros(8), "8 samples"),
        (np.zeros((50, 2, 2)), np.zeros(50), "shape"),
        (np.array(["a"] * 50), np.zeros(50), "not real numbers"),
    ],
)
def test_mistakes_are_one_sentence(x: Floats, y: Floats, message: str) -> None:
    with pytest.raises(DataError, match=message):
        estimate(x, y)


def test_unknown_estimators_and_constant_sides() -> None:
    x = np.random.default_rng(0).normal(size=100)
    with pytest.raises(DataError, match="infonce"):
        estimate(x, x, estimators=["infonec"])
    found = estimate(x, np.ones(100))
    assert found.nats == 0
    assert any("constant" in w for w in found.warnings)


def test_critics_take_two_hundred_samples_and_no_fewer() -> None:
    x, y, _ = gaussian_pair([0.6], 200, 1)
    assert panel._folds(prepare(x, y, None, 0), None, 0, "cpu").x.shape == (4, 150, 1)
    fewer = estimate(x[:-1], y[:-1], estimators=["gaussian", "mine"])
    assert set(fewer.estimates) == {"gaussian"}
    assert any("MINE was left out: 199 samples" in w for w in fewer.warnings)


def test_of_many_samples_some_are_drawn_with_their_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: every sample six times, which stays together where its group is known."""
    monkeypatch.setattr(panel, "MOST", 400)
    x, y = np.repeat(np.random.default_rng(0).normal(size=(2, 80, 3)), 6, axis=1)
    pair = prepare(x, y, None, 0)
    for groups, again in ((np.repeat(np.arange(80), 6), 0.0), (None, 1.0)):
        folds = panel._folds(pair, groups, 0, "cpu")
        assert folds.x.shape[1] + 2 * folds.held_x[0].shape[1] == 400
        nearest = torch.cdist(folds.held_x[0], folds.x).amin(2)
        assert float((nearest < 1e-2).double().mean()) == pytest.approx(again, abs=0.05)


@pytest.mark.parametrize("value", [Estimate(math.nan, 0.1), Estimate(0.1, math.inf)])
def test_what_is_not_finite_is_left_out(monkeypatch: pytest.MonkeyPatch, value: Estimate) -> None:
    monkeypatch.setitem(panel._PLAIN, "ksg", lambda *_: value)
    x, y, _ = gaussian_pair([0.6], 300, 0)
    found = estimate(x, y, estimators=FAST)
    assert set(found.estimates) == {"gaussian"}
    assert any("KSG was left out: it gave no finite value" in w for w in found.warnings)
    with pytest.raises(DataError, match="No estimator could be used"):
        estimate(x, y, estimators=["ksg"])
