"""A default device of somebody's own ("cuda" in a notebook) changes no number, and stays his.

"meta" stands in for it: whatever of ours is made there has no values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import polycode_plugins as pc
from polycode_plugins.devices import as_found, on_host
from polycode_plugins.torchmetrics import TorchMetric
from polycode_plugins.training import Monitor

DATA = torch.randn(160, 6, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(300, 900, (30, 8), generator=torch.Generator().manual_seed(0))
SPECTRUM = pc.metrics.Spectrum(ranks=(1, None))


class Network(nn.Module):
    """Notes where a tensor of its own lies that names no device."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 24), nn.Tanh())
        self.places: set[str] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.places.add(torch.zeros(()).device.type)
        return self.layers(x)


def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network().eval()


MODEL = network()


@contextmanager
def set_as_default() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


def attached(model: nn.Module) -> pc.Analysis:
    with pc.attach(model, "layers.1", [SPECTRUM, "capacity", "cka"]) as probe:
        model(DATA)
        model(DATA[:30])
    return probe.compute()


def analysed(model: nn.Module) -> pc.Analysis:
    metrics = [SPECTRUM, "capacity", "cka", pc.metrics.Action(path="rows")]
    return pc.analyze(model, DATA, metrics, "layers.1", batch_size=50)


def measured(_model: nn.Module) -> pc.Analysis:
    return pc.measure({"a": DATA.repeat(1, 2) + DATA.roll(1, 1).repeat(1, 2)}, [SPECTRUM])


@pytest.mark.parametrize("way", [attached, analysed, measured])
@pytest.mark.parametrize("default", [set_as_default, lambda: torch.device("meta")])
def test_the_numbers_are_the_same(way: Callable[[nn.Module], pc.Analysis], default):
    expected = way(network()).to_dataframe()
    model = network()
    with default():
        found = way(model)
        assert torch.zeros(()).device.type == "meta"
    assert torch.zeros(()).device.type == "cpu"
    assert found.to_dataframe().equals(expected)
    if way is not measured:
        assert "meta" in model.places  # as it runs without us


class Rows(Dataset[Tensor]):
    """Rows that are made where tensors are made by default."""

    def __len__(self) -> int:
        return len(DATA)

    def __getitem__(self, index: int) -> Tensor:
        if index >= len(DATA):
            raise IndexError
        assert torch.zeros(()).device.type == "meta"
        return DATA[index]


class Loader:
    def __iter__(self) -> Iterator[Tensor]:
        for part in DATA.split(40):
            assert torch.zeros(()).device.type == "meta"
            yield part


@pytest.mark.parametrize("make", [Rows, Loader, lambda: iter(Loader())])
def test_data_are_made_with_the_default_that_was_set(make):
    with set_as_default():
        data = make()
        found = pc.analyze(MODEL, data, [SPECTRUM], "layers.1", batch_size=40)
    expected = pc.analyze(MODEL, DATA, [SPECTRUM], "layers.1", batch_size=40)
    assert found.to_dataframe().equals(expected.to_dataframe())


def test_a_model_of_text_is_read_as_without():
    model = pc.load(None).model
    site = "blocks.1.hook_resid_post"

    def run() -> float:
        with pc.attach(model, site, SPECTRUM) as probe, torch.no_grad(), torch.device("cpu"):
            model(TOKENS)  # whose own tensors are there
        return probe.compute()[site, "spectrum"].exponent

    expected = run()
    with set_as_default():
        assert run() == expected


def test_metrics_of_training_are_the_same():
    models = [network(), network()]

    def logged() -> dict[str, float]:
        metric = TorchMetric(SPECTRUM)
        for part in DATA.split(40):
            metric.update(part)
        settings = {"every": 1, "share": math.inf, "limit": 160, "batch_size": 160}
        monitor = Monitor(models.pop(), DATA, ["layers.1"], **settings)
        monitor.begin()
        # What it computes goes to its device, which is the default one for torchmetrics.
        (result,) = metric.results().values()
        found = {k: v for k, v in result.scalars().items() if isinstance(v, float)}
        return found | monitor.after(1)

    expected = {k: v for k, v in logged().items() if "seconds" not in k and "share_of" not in k}
    with set_as_default():
        found = logged()
    assert {k: found[k] for k in expected} == pytest.approx(expected, nan_ok=True)


def test_one_within_the_other():
    with set_as_default(), on_host():
        assert torch.zeros(()).device.type == "cpu"
        with as_found():
            assert torch.zeros(()).device.type == "meta"
            with on_host():
                assert torch.zeros(()).device.type == "cpu"
            assert torch.zeros(()).device.type == "meta"
        assert torch.zeros(()).device.type == "cpu"
    with as_found(), on_host():
        assert torch.zeros(()).device.type == "cpu"


def test_warnings_are_still_of_the_line_that_asked():
    model = pc.load(None).model
    _, cache = model.run_with_cache(TOKENS.where(torch.arange(8) > 0, 0))
    with pytest.warns(UserWarning, match="special tokens|left out") as caught:
        pc.measure(cache, ["spectrum"], "blocks.1.hook_resid_post")
    assert {warning.filename for warning in caught} == {__file__}
