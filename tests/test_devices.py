"""Nothing in the loop makes the host wait for a GPU, by a simulated one that notices if it does."""

from __future__ import annotations

import inspect
import textwrap
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import forks
import pytest
import torch
import transformers
from device_streams import batches, feed, fresh
from simulated_device import DEVICE, OnDevice, SimulatedDevice
from tiny_models import lens_model, save_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import polycode_plugins as pc
from polycode_plugins import activations, devices
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.data_options import DataOptions
from polycode_plugins.loading import load
from polycode_plugins.metrics import (
    CKA,
    MINE,
    Action,
    Capacity,
    Spectrum,
    accumulators,
    moments,
    reservoir,
)
from polycode_plugins.metrics.action import increments
from polycode_plugins.metrics.inputs import FiniteCheck
from polycode_plugins.metrics.spectrum import priority_sample, waiting_rows
from polycode_plugins.metrics.spectrum.rows import groups, sketch
from polycode_plugins.runs.gathering import Statistics

LOOK = "metrics/inputs.py look"
MEAN = "metrics/spectrum/priority_sample.py _collect"
FETCH = "metrics/spectrum/waiting_rows.py by_batch"
NAMES = "row_names.py content"


def asked(device: SimulatedDevice) -> Counter[str]:
    """How often each function of the package made the host wait."""
    found: Counter[str] = Counter()
    for wait, times in device.noted.ours().items():
        place, function = wait.where.split()
        found[f"{place.partition(':')[0]} {function}"] += times
    return found


# -- the device -----------------------------------------------------------------------------------


def noted(work: Any) -> str:
    with SimulatedDevice() as device:
        values = OnDevice(torch.arange(12.0).reshape(3, 4))
        device.noted.clear()
        work(values)
        return " ".join(wait.what for wait in device.noted.waits)


@pytest.mark.parametrize(
    ("work", "what"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: bool((x > 1).any()), "_local_scalar_dense"),
        (lambda x: float(x[0, 0]), "_local_scalar_dense"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 1], "index: the shape depends on a mask"),
        (lambda x: x[torch.tensor([0, 2])], "index: an index is copied from the CPU"),
        (lambda x: x.masked_select(x > 1), "masked_select"),
        (torch.unique, "unique"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: x.cpu(), "copied to the CPU"),
        (lambda x: x.tolist(), "copied to the CPU"),
        (lambda x: x.to("cpu", non_blocking=True), "not pinned"),
        (lambda x: torch.ones(3).to(x.device), "copied from the CPU"),
        (lambda x: torch.tensor([1.0, 2.0], device=x.device), "copied from the CPU"),
        (lambda x: torch.ones(3).to(x.device, non_blocking=True), "not pinned"),
        (lambda x: x.copy_(torch.ones(3, 4)), "copied from the CPU"),
        (lambda x: torch.linalg.eigvalsh(x @ x.T), "its error code is looked at"),
        (lambda x: x.long().flatten().bincount(), "bincount"),
        (lambda x: x.repeat_interleave(x[0].long(), dim=1), "repeat_interleave"),
        (lambda x: torch.erfinv(x), "erfinv: nobody has judged"),
    ],
)
def test_what_waits_is_noted(work: Any, what: str):
    assert what in noted(work)


def test_a_fork_of_the_process_can_still_train():
    def train() -> None:
        torch.ones(3, requires_grad=True).sum().backward()

    with FakeTensorMode():
        torch.ones(3, device="cuda")
    with SimulatedDevice():
        pass
    train()
    assert forks.Program(train).end().returncode == 0


def test_what_waits_for_nothing_is_not_noted():
    def work(x: torch.Tensor) -> None:
        y = (x.double() @ x.double().T).sub_(1).clamp_min(0)
        at = devices.moved(torch.tensor([2, 0]), x.device)
        torch.cat([x, x]).index_select(0, at).topk(2)
        torch.where(y > 0, y, 0.0).sum(dim=1, dtype=torch.float64)
        torch.zeros(3, device=x.device).index_add_(0, at, x[:2, 0])

    assert noted(work) == ""


def test_a_device_refuses_what_is_not_on_it():
    with SimulatedDevice(), pytest.raises(RuntimeError, match="on the CPU and on the device"):
        OnDevice(torch.ones(3)) + torch.ones(3)


def test_operations_are_those_of_the_cpu_and_views_share_their_values():
    with SimulatedDevice():
        x = OnDevice(torch.zeros(3, 4))
        x[1:, ::2].add_(2)
        assert x.device == DEVICE
        assert x.is_cuda
        assert x.cpu().tolist() == [[0] * 4, [2, 0, 2, 0], [2, 0, 2, 0]]


# -- the loop -------------------------------------------------------------------------------------


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for more of its kind is worked off within a few batches."""
    monkeypatch.setattr(groups, "PENDING", 600)
    monkeypatch.setattr(moments, "BLOCK_ROWS", (64, 512))


METRICS = [
    Spectrum(),
    Spectrum(precision="float32", label="single"),
    Action(),
    CKA(100),
    Capacity(),
]


@pytest.mark.parametrize(
    ("metrics", "layout"),
    [
        (METRICS, {}),
        (METRICS, {"masked": False}),
        (METRICS, {"packed": True}),
        ([*METRICS[:2], *METRICS[3:], Action(path="rows")], {"positions": False, "masked": False}),
        ([MINE(samples=200)], {}),
        ([Spectrum(positions="features")], {"masked": False}),
        ([Action(path="rows")], {"masked": False}),
    ],
    ids=["masked", "whole", "packed", "two-axes", "mine", "features", "rows"],
)
@pytest.mark.usefixtures("small_blocks")
def test_nothing_waits_in_the_loop(metrics: Any, layout: Any):
    device = SimulatedDevice()
    sites = 1 if layout else 2
    stream = [batch[:sites] for batch in batches(31, **layout)]
    statistics = feed(fresh(metrics), stream[:16], device)
    device.noted.clear()
    feed(statistics, stream[16:], device)
    assert device.noted.operations > 100
    assert not asked(device)


def test_the_host_looks_every_so_many_batches(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FiniteCheck, "LOOK", 4)
    monkeypatch.setattr(priority_sample, "WAITING", 8)
    device = SimulatedDevice()
    statistics = feed(fresh([Spectrum(), Action(), CKA(256)]), batches(16), device)
    device.noted.clear()
    feed(statistics, batches(16, first=16), device)
    fetched = 2 * 16 // 8  # of both sites
    assert asked(device) == {LOOK: 16 // 4, FETCH: 2 * fetched, MEAN: fetched}


def test_rows_without_a_number_are_known_by_their_values():
    device = SimulatedDevice()
    statistics = feed(fresh([Spectrum()]), batches(16, numbered=False), device)
    device.noted.clear()
    feed(statistics, batches(10, first=16, numbered=False), device)
    assert asked(device) == {NAMES: 2 * 10}


def test_a_mask_on_the_device_is_fetched_once_for_all_sites():
    device = SimulatedDevice()
    stream = batches(4)
    with device:
        statistics = fresh([Spectrum(), Action()])
        for index, batch in enumerate(stream):
            mask = OnDevice(batch[0][1].mask)
            if index == 3:
                device.noted.clear()
            for site, read in batch:
                given = activations.Activations(
                    OnDevice(read.values), read.axes, mask, read.rows, None, None, read.shared
                )
                statistics.receive(site, given)
    assert asked(device)["activations.py _full_mask"] == 1


# -- faults ---------------------------------------------------------------------------------------


def planted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, old: str, new: str) -> None:
    """A function of the package, written anew with `new` for `old`."""
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1
    source = "from __future__ import annotations\n" + source.replace(old, new)
    code = compile(source, inspect.getsourcefile(function) or "", "exec")
    made: dict[str, Any] = {}
    exec(code, function.__globals__, made)
    monkeypatch.setattr(owner, name, made[name])


FAULTS: dict[str, tuple[Any, str, str, str]] = {
    "accumulators.py update": (
        accumulators.Covariance, "update", "self._follow(", "float(rows.sum()); self._follow(",
    ),
    "moments.py _shift": (
        moments.Moments, "_shift", "scale = ", "float(delta.sum()); scale = ",
    ),
    "groups.py update": (
        groups.RowGroups, "update", "rows @ basis,", "(rows @ basis).cpu().to(rows.device),",
    ),
    "groups.py _fold": (
        groups.RowGroups, "_fold", "low, high =", "float(values.min()); low, high =",
    ),
    "sketch.py steep": (groups.RowGroups, "_fold", 'values.device.type != "cpu"', "False"),
    "sketch.py sums_by_group": (
        sketch, "sums_by_group", "lines = moved(torch.from_numpy(source), values.device)",
        "lines = torch.from_numpy(source).to(values.device)",
    ),
    "waiting_rows.py offer": (
        waiting_rows.WaitingRows, "offer", "where = places[best]",
        "where = places[best[: int((priority >= 0).sum())]]",
    ),
    "priority_sample.py drawn": (
        priority_sample.PrioritySample, "_drawn", "moved(numbered, places.device)",
        "numbered.to(places.device)",
    ),
    "activations.py sample_places": (
        activations.Activations, "sample_places", "moved(self._counted(), self.values.device)",
        "self._counted().to(self.values.device)",
    ),
    "increments.py _lines": (
        increments, "_lines", "at = chosen", "values[moved(chosen, values.device)]; at = chosen",
    ),
    "reservoir.py update": (
        reservoir.Reservoir, "update", ".detach().float(),",
        ".detach().float().cpu().to(samples.device),",
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", FAULTS)
@pytest.mark.usefixtures("small_blocks")
def test_a_fault_is_noticed(monkeypatch: pytest.MonkeyPatch, place: str):
    owner, name, old, new = FAULTS[place]
    planted(monkeypatch, owner, name, old, new)
    monkeypatch.setattr(groups, "sums_by_group", sketch.sums_by_group)
    device = SimulatedDevice()
    stream = [batch[:1] for batch in batches(15)]  # one site is enough
    statistics = feed(fresh([Spectrum(), Action(), CKA(16)]), stream[:8], device)
    device.noted.clear()
    feed(statistics, stream[8:], device)
    assert {where.rpartition("/")[2] for where in asked(device)} == {place}


# -- whole passes ---------------------------------------------------------------------------------


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, 12)).eval()


def gpt2(layers: int = 2) -> nn.Module:
    config = transformers.GPT2Config(
        n_embd=32,
        n_layer=layers,
        n_head=2,
        n_positions=64,
        vocab_size=101,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.GPT2Model(config).eval()


@pytest.mark.parametrize("kind", ["module", "transformers", "transformer-lens"])
def test_nothing_waits_in_a_pass_of_our_own(kind: str, tmp_path: Path):
    model: nn.Module = perceptron()
    data: Any = torch.randn(240, 20)
    sites: str | None = None
    if kind == "transformer-lens":
        model = lens_model("bridge", save_model(tmp_path / "model"))
        data = [f"The cat sat {i} times on a mat." * (1 + i % 3) for i in range(400)]
    if kind == "transformers":
        model, sites = gpt2(), "h.*"
        padding = torch.ones(240, 16, dtype=torch.int64)
        padding[::3, 12:] = 0
        data = [
            {"input_ids": torch.randint(1, 101, (20, 16)), "attention_mask": part}
            for part in padding.split(20)
        ]
    with SimulatedDevice() as device:
        adapter = load(device.put(model))
        statistics = None
        with undisturbed(adapter.model):
            options = DataOptions(batch_size=20, context=16)
            for batch in islice(adapter.batches(data, options), 12):
                if statistics is None:
                    chosen = adapter.resolve(sites, batch)
                    statistics = Statistics([Spectrum()], chosen)
                if statistics.batches == 3:
                    device.noted.clear()
                statistics.begin(batch.labels)
                adapter.run(batch, chosen, statistics.receive)
                statistics.batches += 1
            assert statistics is not None
            assert statistics.batches == 12
            assert device.noted.operations > 100
            assert not asked(device)


def waits_of_a_pass(layers: int) -> Counter[str]:
    """Those of a pass of somebody else's workflow, with padding and a special token."""
    padding = torch.ones(20, 16, dtype=torch.int64)
    padding[::3, 12:] = 0
    with SimulatedDevice() as device:
        model = device.put(gpt2(layers))
        with pc.attach(model, "h.*", [Spectrum(), Action()]), torch.no_grad():
            for index in range(5):
                if index == 4:
                    device.noted.clear()
                tokens = torch.randint(
                    1, 101, (20, 16), generator=torch.Generator().manual_seed(index)
                )
                model(input_ids=OnDevice(tokens), attention_mask=OnDevice(padding))
            return asked(device)


def test_another_workflow_waits_for_its_tokens_and_mask_whatever_the_number_of_sites():
    few, many = waits_of_a_pass(2), waits_of_a_pass(5)
    assert few == many
    assert sum(few.values()) == 5
    assert {place.split("/")[0] for place in few} == {"adapters"}


def test_results_are_those_of_the_cpu():
    torch.manual_seed(0)
    model, data = perceptron(), torch.randn(600, 20)
    metrics = [Spectrum(), CKA(100)]
    there = pc.analyze(model, data, metrics, batch_size=20, progress=False).to_dataframe()
    with SimulatedDevice() as device:
        found = pc.analyze(device.put(model), data, metrics, batch_size=20, progress=False)
        here = found.to_dataframe()
    assert list(here.columns) == list(there.columns)
    numbers = there.select_dtypes("number").columns
    assert len(numbers) > 5
    for name in numbers:
        assert here[name].tolist() == pytest.approx(there[name].tolist(), rel=1e-6, nan_ok=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of NVIDIA is here")
def test_nothing_waits_on_a_gpu():
    def there(stream: Any) -> Any:
        return [
            [
                (
                    site,
                    activations.Activations(
                        read.values.cuda(), read.axes, read.mask, read.rows, None, None, read.shared
                    ),
                )
                for site, read in batch
            ]
            for batch in stream
        ]

    statistics = feed(fresh(METRICS), there(batches(16)))
    rest = there(batches(15, first=16))
    torch.cuda.set_sync_debug_mode("error")
    try:
        feed(statistics, rest)
    finally:
        torch.cuda.set_sync_debug_mode("default")
