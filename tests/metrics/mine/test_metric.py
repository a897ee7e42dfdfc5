"""The mine metric on networks whose information is known, and on questions without an answer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.errors import DataError, SiteError
from polycode_plugins.information import AdditiveGaussian, mine
from polycode_plugins.metrics import MINE, MINEResult
from polycode_plugins.testing.reference.oracles import distorted_gaussian_information

PLAIN = ("gaussian", "ksg")
#: Two components at noise of half their deviation: 2 * 1/2 ln(1 + 4).
TWO = math.log(5)


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Critics train for a moment only, on one thread."""
    monkeypatch.setattr(mine, "TRAINING", mine.Training(steps=100))
    monkeypatch.setattr(mine, "REFINEMENT", mine.Training(steps=50, rate=1e-3))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def normal(n: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def linear() -> nn.Sequential:
    """Two layers that turn and stretch the plane and lose nothing of it."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 6))
    return model.eval()


# -- arrays ------------------------------------------------------------------------------------


def test_measure_of_two_arrays() -> None:
    x = normal(4000, 1)
    y = 0.75 * x + math.sqrt(1 - 0.75**2) * normal(4000, 1, 1)
    found = pc.metrics.MINE().measure(x, y.numpy())
    truth = -0.5 * math.log(1 - 0.75**2)
    assert abs(found.nats - truth) < 0.05
    assert found.nats <= found.estimates["gaussian"]
    assert set(found.estimates) == {"gaussian", "ksg", "mine", "infonce", "smile"}
    assert found.bits == pytest.approx(found.nats / math.log(2))
    assert found.interval[0] < found.nats < found.interval[1]
    assert found.channel is None


def test_measure_with_a_stated_channel() -> None:
    x = 2 * normal(8000, 1)
    found = MINE(estimators=PLAIN).measure(x, x, channel=AdditiveGaussian(1.0))
    assert abs(found.nats - 0.5 * math.log(5)) < 0.03
    relative = MINE(estimators=PLAIN, channel="gaussian", noise=0.5).measure(x, 10 + x)
    assert abs(relative.nats - 0.5 * math.log(5)) < 0.03
    assert relative.ceiling == pytest.approx(0.5 * math.log(5))
    assert "50% of each component's sd" in relative.reading
    with pytest.raises(DataError, match="infinite"):
        MINE().measure(x, x)
    with pytest.raises(DataError, match="two arrays"):
        MINE().measure(x)


def test_quantisation_lets_its_bits_through() -> None:
    x = torch.rand(8000, 1, generator=torch.Generator().manual_seed(3))
    found = MINE(estimators=PLAIN, channel="quantisation", bits=2).measure(x, x)
    # A uniform spans +-1.73 of 3 deviations: cells of 1.5 sd hold shares .067, .433, .433, .067.
    share = np.array([(math.sqrt(3) - 1.5) / math.sqrt(12), 1.5 / math.sqrt(12)])
    truth = -2 * float((share * np.log(share)).sum())
    assert abs(found.nats - truth) < 0.05
    assert found.ceiling == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_quantisation_channel_in_several_dimensions(dims: int, bits: int) -> None:
    metric = MINE(partner_dims=dims, estimators=PLAIN, channel="quantisation", bits=bits)
    x, noise = normal(2000, dims).double(), normal(2000, dims, 1).double()
    found = metric.measure(x, 0.5 * x + math.sqrt(0.75) * noise)
    truth = dims * distorted_gaussian_information(0.5, "", f"quantised {bits}")
    assert abs(found.nats / truth - 1) < 0.15
    apart = metric.measure(x, noise)
    assert apart.interval[0] == 0
    assert apart.nats < 0.03


def test_the_published_mode_is_another_estimator() -> None:
    x = normal(400, 1)
    found = MINE(mode="as_published").measure(x, x + normal(400, 1, 1))
    assert set(found.estimates) == {"mine-as-published"}
    assert len(found.curves["mine-as-published"]) == 150


# -- sites -------------------------------------------------------------------------------------


def test_a_lossless_layer_passes_what_the_noise_lets_through() -> None:
    found = pc.analyze(linear(), normal(4000, 2), metrics=[MINE(estimators=PLAIN)])
    for site in found:
        result = found[site, "mine"]
        assert abs(result.nats - TWO) < 0.06, site
        assert result.ceiling == pytest.approx(TWO)
        assert result.partner == "0"
        assert (result.n_samples, result.n_rows) == (4000, 4000)
        assert result.dims == (2, 2)
        assert result.variance_kept[1] == pytest.approx(1.0)
        assert "additive Gaussian noise of 50%" in result.reading


def test_a_layer_that_drops_a_direction_passes_half() -> None:
    """Planted: the second layer keeps one of two independent inputs."""
    model = linear()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[1].weight.copy_(torch.tensor([[1.0, 0.0]] * 6))
    found = pc.analyze(model, normal(4000, 2), metrics=[MINE(estimators=PLAIN)])
    assert abs(found["1", "mine"].nats - TWO / 2) < 0.04


def test_independent_and_shuffled_sites_share_nothing() -> None:
    x = normal(3000, 3)
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(2))
    sites = {"x": x, "other": normal(3000, 3, 1), "shuffled": torch.tanh(2 * x[order])}
    found = pc.measure(sites, [MINE()])
    assert found["other", "mine"].nats < 0.02
    assert found["shuffled", "mine"].nats < 0.02
    same = pc.measure({"x": x, "same": x}, [MINE(estimators=(*PLAIN, "mine"))])
    assert same["same", "mine"].nats > 2  # what the control controls for


def test_a_noiseless_network_is_refused_with_the_reason() -> None:
    with pytest.raises(DataError, match=r"infinite.*deterministic.*channel='gaussian'"):
        pc.analyze(linear(), normal(100, 2), metrics=[MINE(channel=None)])
    with pytest.raises(DataError, match="infinite"):
        pc.measure({"a": normal(100, 2)}, [MINE(channel=None)])
    with (
        pytest.raises(DataError, match="infinite"),
        pc.attach(linear(), None, [MINE(channel=None)]),
    ):
        pass


class Erasing(nn.Module):
    """A bit, then dropout: an erasure channel of known information."""

    def __init__(self) -> None:
        super().__init__()
        self.bit = nn.Identity()
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.bit(x))


def test_the_networks_own_dropout_is_a_channel_in_train_mode() -> None:
    bits = torch.randint(2, (4000, 1), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    metric = MINE(channel="dropout", estimators=("ksg",))
    model = Erasing().train()
    found = pc.analyze(model, bits, metrics=[metric], sites=["bit", "drop"], train_mode=True)
    assert abs(found["drop", "mine"].nats - 0.7 * math.log(2)) < 0.02
    assert "dropout" in found["drop", "mine"].reading
    itself = found["bit", "mine"]
    assert itself.nats == math.inf
    assert MINEResult.from_dict(json.loads(json.dumps(itself.to_dict()))).nats == math.inf
    for options in ({"train_mode": False}, {"train_mode": True}):
        model.train(not options["train_mode"])
        with pytest.raises(DataError, match="dropout"):
            pc.analyze(model, bits, metrics=[metric], **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="dropout"):
        pc.analyze(linear().train(), normal(100, 2), metrics=[metric], train_mode=True)


def test_the_input_as_partner() -> None:
    """Planted: of the input's three directions the network sees two."""
    model = nn.Sequential(nn.Linear(3, 5, bias=False), nn.Linear(5, 5))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0] = model[0].weight[1, 1] = 1.0
    metric = MINE(partner="input", estimators=PLAIN)
    found = pc.analyze(model.eval(), normal(4000, 3), metrics=[metric])
    for site in found:
        assert abs(found[site, "mine"].nats - TWO) < 0.06, site
        assert found[site, "mine"].dims == (3, 2)
        assert found[site, "mine"].partner == "input"
    with pytest.raises(DataError, match="inputs are unknown"):
        pc.measure({"a": normal(100, 2)}, [metric])
    wide = nn.Sequential(nn.Linear(5000, 2))
    with pytest.raises(DataError, match="too wide"):
        pc.analyze(wide, torch.randn(40, 5000), metrics=[metric])


def test_labels_on_separable_data_and_on_none() -> None:
    label = torch.randint(3, (900,), generator=torch.Generator().manual_seed(0))
    x = normal(900, 2) * 0.05 + torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])[label]
    metric = MINE(partner="label", estimators=("ksg",))
    batches = list(zip(x.split(100), label.split(100), strict=True))
    found = pc.analyze(linear(), batches, metrics=[metric])
    for site in found:
        assert abs(found[site, "mine"].nats - math.log(3)) < 0.02
        assert found[site, "mine"].nats <= found[site, "mine"].ceiling
        assert found[site, "mine"].channel is None
    noise = list(zip(x.split(100), label[torch.randperm(900)].split(100), strict=True))
    assert pc.analyze(linear(), noise, metrics=[metric])["1", "mine"].nats < 0.03
    with pytest.raises(DataError, match="no label"):
        pc.analyze(linear(), x, metrics=[metric])


@pytest.mark.parametrize(("noise", "nats"), [(1.0, 0.3368), (0.5, 0.6327)])
def test_labels_through_noise_share_what_a_binary_channel_passes(noise: float, nats: float) -> None:
    """Two classes at -1 and 1 through Gaussian noise: ln 2 less the entropy of the class given y,

    0.4859 and 0.9128 bits by integration (the binary-input Gaussian channel at 0 and 6 dB).
    """
    label = torch.arange(4000) % 2
    network = torch.nn.Sequential(torch.nn.Flatten())
    batches = list(zip((2.0 * label - 1)[:, None].split(500), label.split(500), strict=True))
    metric = MINE(partner="label", channel="gaussian", noise=noise, estimators=("ksg",))
    found = pc.analyze(network, batches, metrics=[metric])["0", "mine"]
    assert found.nats == pytest.approx(nats, abs=0.03)


def test_shards_merge_to_the_whole() -> None:
    data, metric = normal(600, 2), MINE(estimators=("gaussian",), samples=200)
    whole = pc.analyze(linear(), data, metrics=[metric])
    parts = [pc.analyze(linear(), data, metrics=[metric], shard=(i, 2)) for i in range(2)]
    joined = parts[1].merge(parts[0])
    for site in whole:
        assert joined[site, "mine"].n_samples == 200
        assert joined[site, "mine"].nats == pytest.approx(whole[site, "mine"].nats, abs=1e-4)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    metric = MINE(estimators=(*PLAIN, "mine"))  # of the three critics one
    found = pc.analyze(linear(), normal(300, 2), metrics=[metric], out=tmp_path / "run")
    again = pc.Analysis.load(tmp_path / "run")
    one, two = found["1", "mine"], again["1", "mine"]
    assert one.to_dict() == two.to_dict()
    assert isinstance(two.curves["mine"], np.ndarray)
    assert two.reading == one.reading
    frame = again.to_dataframe()
    assert {"mine.nats", "mine.interval_low", "mine.partner"} <= set(frame.columns)
    axes = two.plot()
    assert len(axes.lines) > 3
    plt.close("all")


def test_a_partner_by_name() -> None:
    metric = MINE(partner="1", estimators=("gaussian",))
    found = pc.analyze(linear(), normal(300, 2), metrics=[metric])
    assert {found[s, "mine"].partner for s in found} == {"1"}
    with pytest.raises(SiteError, match=r"'9'.*not among the sites"):
        pc.analyze(linear(), normal(300, 2), metrics=[MINE(partner="9")])


def test_a_channel_is_given_by_name_and_one_of_its_own_with_two_arrays() -> None:
    with pytest.raises(DataError, match=r"measure\(x, y, channel=\.\.\.\)"):
        MINE(channel=AdditiveGaussian(0.1))  # type: ignore[arg-type]
    assert MINE(channel="dropout").channel == "dropout"


def test_settings_survive_their_json_and_mistakes_are_told() -> None:
    metric = MINE(partner="1", channel=None, estimators=("ksg",), noise=0.1)
    assert MINE.from_options(json.loads(json.dumps(metric.options()))) == metric
    with pytest.raises(DataError, match="there is no channel 'noise'"):
        MINE(channel="noise")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="above 0"):
        MINE(noise=0.0)
    with pytest.raises(DataError, match="did you mean 'ksg'"):
        MINE(estimators=("ksgg",))
    with pytest.raises(DataError, match="list of names"):
        MINE(estimators="ksg")
    with pytest.raises(DataError, match="constant"):
        pc.measure({"a": torch.ones(100, 3), "b": normal(100, 3)}, [MINE()])


def test_hooks_pair_the_points_they_are_called_from() -> None:
    class Point:
        def __init__(self, name: str) -> None:
            self.name = name

    hook = MINE(estimators=PLAIN).as_hook()
    for seed in range(4):
        x = normal(40, 2, seed).reshape(8, 5, 2)
        hook(x, hook=Point("first"))
        hook(3 * x + 1, hook=Point("second"))
    found = hook.compute()
    assert found["second"].partner == "first"
    assert abs(found["second"].nats - TWO) < 0.3
    assert found["second"].n_samples == 160
    assert any("rows" in w for w in found["second"].warnings)


def test_maps_of_different_resolution() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())
    images = torch.randn(60, 3, 12, 12)
    found = pc.analyze(
        model.eval(), images, metrics=[MINE(estimators=("gaussian",))], sites=["0", "2", "3"]
    )
    near, far = found["2", "mine"], found["3", "mine"]
    assert near.n_samples > 1000
    assert near.n_rows == 60
    assert 0.1 < near.nats < found["0", "mine"].nats  # averages of four pixels, one of which is x
    assert far.n_samples == 60  # one vector an image


def test_the_embedded_language_model() -> None:
    found = pc.analyze(
        metrics=[MINE(estimators=("gaussian",), samples=1000)],
        sites="blocks.*.hook_resid_post",
        limit=160,
    )
    values = [found[s, "mine"].nats for s in found]
    assert values == sorted(values, reverse=True)  # ever less of the first layer is left
    assert found[next(iter(found)), "mine"].n_samples == 1000
