"""What waits on a GPU are the rows that the CPU keeps."""

from __future__ import annotations

import pytest
import torch
from device_streams import ROWS, SITES, WIDTH, batches, feed, fresh
from safetensors.torch import load, save
from simulated_device import SimulatedDevice

from polycode_plugins.activations import Activations, Tokens
from polycode_plugins.metrics import CKA, Action, Spectrum
from polycode_plugins.metrics.spectrum import priority_sample
from polycode_plugins.metrics.spectrum.priority_sample import Kept, PrioritySample
from polycode_plugins.runs.gathering import Statistics

METRICS = [Spectrum(), Action(), CKA(200)]


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority_sample, "WAITING", 8)


def sample_of(statistics: Statistics, site: str = SITES[0]) -> PrioritySample:
    found = statistics.accumulators(site, "spectrum")["rows"]
    assert isinstance(found, PrioritySample)
    return found


def kept(statistics: Statistics) -> Kept:
    mean = statistics.accumulators(SITES[0], "spectrum")["covariance"].mean()  # type: ignore[attr-defined]
    return sample_of(statistics).kept(mean.cpu())


@pytest.mark.parametrize(
    "layout", [{}, {"masked": False}, {"packed": True}, {"numbered": False}, {"positions": False}]
)
def test_the_same_rows_are_kept(layout: dict[str, bool]):
    metrics = [Spectrum()]
    stream = batches(30, **layout)
    there = kept(feed(fresh(metrics), stream))
    device = SimulatedDevice()
    found = feed(fresh(metrics), stream, device)
    with device:
        here = kept(found)
    assert torch.equal(here.values, there.values)
    assert torch.allclose(here.counts, there.counts, rtol=1e-12)
    assert here.names == there.names
    assert {name.document for name in here.names} != {None} or not layout.get("numbered", True)


def test_tokens_are_named_that_stood_there(monkeypatch: pytest.MonkeyPatch):
    device = SimulatedDevice()
    total = PrioritySample()
    with device:
        for (_, read), *_ in batches(20):
            ids = torch.arange(read.values[..., 0].numel()).reshape(read.values.shape[:2])
            assert read.rows is not None
            ids = ids + int(read.rows[0]) * 1000
            given = Activations(read.values, read.axes, read.mask, read.rows)
            there = Activations(
                device_values(read), read.axes, read.mask, read.rows, None, Tokens(ids, str)
            )
            total.update(there)
            ids.zero_()  # which is its owner's to do
            assert given.tokens is None
        names = total.kept(torch.zeros(WIDTH, dtype=torch.float64)).names
    for name in names:
        first = name.row // ROWS * ROWS
        expected = (name.row - first) * read.values.shape[1] + name.place[0] + first * 1000
        assert (name.token, name.text) == (expected, str(expected))


def device_values(read: Activations) -> torch.Tensor:
    from simulated_device import OnDevice

    return OnDevice(read.values)


def test_reading_changes_no_state():
    device = SimulatedDevice()
    read, unread = fresh(METRICS), fresh(METRICS)
    for batch in batches(12):
        feed(read, [batch], device)
        feed(unread, [batch], device)
        with device:
            read.state()
            sample_of(read).n_samples  # noqa: B018
    with device:
        one, other = read.state(), unread.state()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("device_first", [True, False])
def test_states_are_saved_merged_and_gone_on_with(device_first: bool):
    device = SimulatedDevice()
    whole = feed(fresh(METRICS), batches(24))
    parts = [batches(11), batches(13, first=11)]
    first = feed(fresh(METRICS), parts[0], device if device_first else None)
    with device:
        saved = load(save(first.state()))
    revived = fresh(METRICS)
    revived.load_state(saved)
    gone_on = feed(revived, parts[1], device)
    merged = fresh(METRICS)
    second = feed(fresh(METRICS), parts[1], None if device_first else device)
    again = fresh(METRICS)
    again.load_state(saved)
    with device:
        merged.merge(again)
        merged.merge(second)
        for total in (gone_on, merged):
            found = kept(total)
            assert torch.equal(found.values, kept(whole).values)
            assert found.names == kept(whole).names
            for metric in METRICS[:2]:
                here = total.compute(SITES[0], metric).scalars()
                for name, number in whole.compute(SITES[0], metric).scalars().items():
                    near = number
                    if isinstance(number, float):
                        near = pytest.approx(number, rel=1e-6, nan_ok=True)
                    assert here[name] == near, name


def test_what_needs_no_other_order_is_equal_bit_by_bit():
    stream = batches(20)
    there = feed(fresh(METRICS), stream).state()
    device = SimulatedDevice()
    found = feed(fresh(METRICS), stream, device)
    with device:
        here = found.state()
    assert here.keys() == there.keys()
    exact = [n for n in there if "priority-sample" not in n and "row-groups" not in n]
    assert len(exact) > 10
    for name in exact:
        assert torch.equal(here[name], there[name]), name
