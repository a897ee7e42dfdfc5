"""NaN and infinite values are refused: at once on the CPU, in time on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from device_streams import SITES, batches, feed, fresh
from simulated_device import OnDevice, SimulatedDevice
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.activations import Activations
from polycode_plugins.errors import DataError
from polycode_plugins.metrics import CKA, Action, Spectrum
from polycode_plugins.metrics.inputs import FiniteCheck, as_activations, check_finite
from polycode_plugins.runs import passes

NAN, INF = float("nan"), float("inf")
METRICS = [Spectrum(), Action(), CKA(200)]


def said(stream: Sequence[Any], device: SimulatedDevice | None = None) -> str:
    """What is raised of a stream: in it, or when its state is asked for."""
    statistics = fresh(METRICS)
    try:
        feed(statistics, stream, device)
        with device or nullcontext():
            statistics.state()
    except DataError as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_gpu_says_what_the_cpu_says(value: float):
    stream = batches(8, bad={(5, SITES[1]): value})
    there = said(stream)
    assert f"batch 5 of site {SITES[1]!r} are NaN or infinite" in there
    assert said(stream, SimulatedDevice()) == there


def test_the_first_bad_batch_is_named():
    bad = {(5, SITES[1]): NAN, (3, SITES[0]): INF, (4, SITES[1]): NAN, (6, SITES[0]): NAN}
    stream = batches(8, bad=bad)
    assert said(stream, SimulatedDevice()) == said(stream)
    assert "batch 3" in said(stream)


def test_values_that_do_not_count_may_be_anything():
    device = SimulatedDevice()
    stream = batches(3)
    for batch in stream:
        for _, read in batch:
            assert read.mask is not None
            read.values[~read.mask] = NAN
    statistics = feed(fresh(METRICS), stream, device)
    with device:
        statistics.require_finite()


def test_a_sum_that_overflows_is_no_bad_value():
    device = SimulatedDevice()
    stream = batches(2)
    for batch in stream:
        for _, read in batch:
            read.values.mul_(1e37)
    statistics = feed(fresh([CKA(200)]), stream, device)
    with device:
        statistics.require_finite()


@pytest.mark.parametrize(
    "ask",
    [
        lambda spoiled, _: spoiled.compute(SITES[1], METRICS[0]),
        lambda spoiled, _: spoiled.state(),
        lambda spoiled, _: spoiled.saved_state(),
        lambda spoiled, good: spoiled.merge(good),
        lambda spoiled, good: good.merge(spoiled),
    ],
)
def test_nothing_is_made_of_a_state_that_is_spoiled(ask: Callable[..., object]):
    device = SimulatedDevice()
    good = feed(fresh(METRICS), batches(4), device)
    spoiled = feed(fresh(METRICS), batches(4, first=4, bad={(5, SITES[0]): NAN}), device)
    with device:
        with pytest.raises(DataError, match="batch 1 of site 'one' are NaN or infinite"):
            ask(spoiled, good)
        good.require_finite()


def test_what_comes_of_bad_values_is_told_as_that():
    device = SimulatedDevice()
    statistics = feed(fresh(METRICS), batches(3, bad={(1, SITES[0]): NAN}), device)
    with device:
        (_, read), (_, other) = batches(1, first=3)[0]
        narrow = [
            Activations(OnDevice(one.values[..., :5]), one.axes, one.mask, one.rows)
            for one in (read, other)
        ]
        with pytest.raises(DataError, match="batch 1 of site 'one' are NaN"):
            statistics.receive(SITES[0], narrow[0])
        with pytest.raises(DataError, match="site 'two': activations of width 5 follow"):
            statistics.receive(SITES[1], narrow[1])


def test_a_site_that_is_spoiled_is_forgotten_and_the_others_are_not():
    device = SimulatedDevice()
    spoiled = feed(fresh(METRICS), batches(20, bad={(2, SITES[0]): NAN}), device)
    whole = feed(fresh(METRICS), batches(20), device)
    with device:
        assert list(spoiled.not_finite()) == [SITES[0]]
        assert spoiled.n_samples(SITES[0]) == 0
        assert spoiled.n_samples(SITES[1]) > 0
        for ours, theirs in zip(
            spoiled.accumulators(SITES[1], "spectrum").values(),
            whole.accumulators(SITES[1], "spectrum").values(),
            strict=True,
        ):
            for name, tensor in theirs.state().items():
                assert torch.equal(ours.state()[name], tensor)


class Spoiled(nn.Module):
    """The output of its layer is NaN after some batches, while it is told so."""

    def __init__(self, after: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(24, 24)
        self.inner.register_forward_hook(self.spoil)
        self.after, self.calls, self.spoils = after, 0, True

    def spoil(self, _module: nn.Module, _args: object, output: Tensor) -> Tensor | None:
        self.calls += len(output) == 8  # trials of the axes have other sizes
        return output * NAN if self.spoils and self.calls > self.after else None

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(x)
        return found


def test_a_run_ends_within_so_many_batches():
    data = torch.randn(8 * 60, 24)
    with SimulatedDevice() as device:
        model = device.put(Spoiled(10))
        with pytest.raises(DataError, match=r"of 192 activations in batch \d+ of site 'inner' are"):
            pc.analyze(model, data, Spectrum(), "inner", batch_size=8, progress=False)
    assert 10 < model.calls <= 10 + 2 * FiniteCheck.LOOK


@pytest.mark.parametrize("every", [0.0, 3600.0])
def test_a_checkpoint_holds_no_bad_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: float
):
    monkeypatch.setattr(passes, "CHECKPOINT_SECONDS", every)
    data = torch.randn(8 * 30, 24)

    def run(model: nn.Module, **options: object) -> pc.Analysis:
        return pc.analyze(model, data, Spectrum(), "inner", batch_size=8, progress=False, **options)

    with SimulatedDevice() as device:
        model = device.put(Spoiled(10))
        with pytest.raises(DataError, match="NaN or infinite"):
            run(model, out=tmp_path / "run")
        assert (tmp_path / "run" / "run.json").exists() == (every == 0.0)
        model.spoils = False
        resumed = run(model, out=tmp_path / "run")
        whole = run(model)
    ours, theirs = (one["inner"]["spectrum"].eigenvalues for one in (resumed, whole))
    assert ours.tolist() == pytest.approx(theirs.tolist(), rel=1e-12)


def test_a_workflow_of_others_goes_on_and_hears_of_it_at_the_end():
    torch.manual_seed(0)
    with SimulatedDevice() as device:
        model = device.put(nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 24)).eval())
        with pc.attach(model, ["0", "2"], Spectrum()) as probe, torch.no_grad():
            for index in range(40):
                data = torch.randn(20, 6)
                if index == 7:
                    data[3] = INF
                model(OnDevice(data))
            with pytest.raises(DataError, match="site '0' are NaN or infinite"):
                probe.compute()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_large_values_are_finite_and_those_that_cancel_are_not(dtype):
    largest = torch.finfo(dtype).max / 4
    values = torch.full((64, 3), largest, dtype=dtype)  # whose sum in float32 is not finite
    check_finite(as_activations(values), "a")
    values[0], values[1] = float("inf"), -float("inf")
    with pytest.raises(DataError, match="6 of 192 activations in site 'a' are NaN or infinite"):
        check_finite(as_activations(values), "a")
