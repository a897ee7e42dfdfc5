"""A loop of one's own with a monitor: right numbers, an undisturbed training, nothing raised."""

from __future__ import annotations

import logging
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

import polycode_plugins as pc
from polycode_plugins.errors import DataError, PolycodeError, StateError
from polycode_plugins.training import History, Monitor
from polycode_plugins.training import monitor as monitor_module


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(12, 24), nn.BatchNorm1d(24), nn.ReLU())
        self.drop = nn.Dropout(0.2)
        self.second = nn.Sequential(nn.Linear(24, 16), nn.Tanh())
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.second(self.drop(self.first(x))))


HELD = torch.randn(300, 12, generator=torch.Generator().manual_seed(5))
SITES = ["first", "second"]


def trained(steps: int = 6, *, start: int = 0, model: Net | None = None, **options):
    """Losses of a short training, with a monitor where there are options for one."""
    torch.manual_seed(0)
    random.seed(0)
    model = model or Net()
    monitor = None
    if options:
        settings = {"every": 2, "share": math.inf, "limit": 300, "batch_size": 300} | options
        monitor = Monitor(
            model, settings.pop("data", HELD), settings.pop("sites", SITES), **settings
        )
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    if monitor is not None:
        monitor.begin(start)
    for step in range(start + 1, start + steps + 1):
        x = torch.randn(32, 12)
        loss = nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append((loss.item(), random.random(), float(torch.rand(()))))
        if monitor is not None:
            monitor.after(step)
    if monitor is not None:
        monitor.end(start + steps)
    return losses, model, monitor


def test_losses_modes_gradients_and_draws_are_as_without_it():
    plain, plain_model, _ = trained()
    watched, model, monitor = trained(metrics=["spectrum", "cka"])
    assert [p.step for p in monitor.history] == [0, 2, 4, 6]
    assert watched == plain
    assert all(module.training for module in model.modules())
    for name, value in plain_model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    for one, other in zip(plain_model.parameters(), model.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_monitor_that_disturbed_would_be_seen():
    class Drawing(Monitor):
        def after(self, step):
            torch.rand(())
            return super().after(step)

    plain, *_ = trained()
    original, monitor_module.Monitor = monitor_module.Monitor, Drawing
    try:
        globals()["Monitor"] = Drawing
        disturbed, *_ = trained(metrics=["spectrum"])
    finally:
        monitor_module.Monitor = original
        globals()["Monitor"] = original
    assert disturbed != plain


def test_numbers_are_those_of_analyze_and_cka():
    _, model, monitor = trained(metrics=["spectrum", "cka"])
    model.eval()
    point = monitor.history.points[-1]
    analysis = pc.analyze(model, HELD, ["spectrum", "cka"], SITES)
    for site in SITES:
        result = analysis[site, "spectrum"]
        value, low, high = point.numbers[site]["spectrum.exponent"]
        assert value == pytest.approx(result.exponent, rel=1e-9)
        assert (low, high) == pytest.approx(result.interval, rel=1e-9)
        value, *_ = point.numbers[site]["spectrum.effective_rank"]
        assert value == pytest.approx(result.effective_rank, rel=1e-9)
    torch.manual_seed(0)
    random.seed(0)
    before = pc.analyze(Net(), HELD, ["spectrum", "cka"], SITES)
    for site, (value, low, high) in pc.cka(before, analysis).same().items():
        assert point.numbers[site]["cka.to_first"] == pytest.approx((value, low, high), rel=1e-6)
        assert monitor.history.points[0].numbers[site]["cka.to_first"][0] == pytest.approx(1.0)


def test_the_share_of_time_holds_and_is_told(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(monitor_module.time, "monotonic", lambda: now[0])
    model = Net()
    monitor = Monitor(model, HELD, ["second"], ["spectrum"], every=5)
    monitor.pace._clock = lambda: now[0]
    measured = monitor._batch.measured

    def slow(first):
        now[0] += 1.0
        return measured(first)

    monkeypatch.setattr(monitor._batch, "measured", slow)
    with caplog.at_level(logging.INFO, "polycode_plugins.training"):
        monitor.begin()
        for step in range(1, 101):
            now[0] += 0.5
            numbers = monitor.after(step)
            if numbers:
                assert numbers["polycode/seconds"] == 1.0
                assert numbers["polycode/share_of_time"] <= 0.05
        monitor.end(100)
    assert [p.step for p in monitor.history] == [0, 80]
    said = " ".join(caplog.messages)
    assert "about every 40 steps one is made" in said
    assert "step 100, the last, is not measured" in said
    assert "2 measurements took 2 s, 4% of the time of training" in said


def test_nothing_is_raised_into_the_training(caplog):
    class Ruined(Net):
        broken = False

        def forward(self, x):
            if self.broken and not self.training:
                raise MemoryError("no room")
            return super().forward(x)

    model = Ruined()
    torch.manual_seed(0)
    monitor = Monitor(model, HELD, SITES, ["spectrum"], every=1, share=math.inf)
    model.train()
    model.broken = True
    assert monitor.begin() == {}
    model.broken = False
    assert monitor.after(1)
    model.broken = True
    for step in range(2, 9):
        assert monitor.after(step) == {}
    assert model.training
    assert "3 measurements in a row have failed" in monitor.left_off
    assert [p.step for p in monitor.history] == [0, 1, 2, 3, 4]
    assert "MemoryError: no room" in monitor.history.points[0].problems[""]
    told = [m for m in caplog.messages if m.startswith("nothing was measured at step 2: ")]
    assert len(told) == 1
    assert "MemoryError: no room" in told[0]


def test_a_dead_site_spares_the_others(caplog):
    model = Net()
    monitor = Monitor(model, HELD, SITES, every=1, share=math.inf)
    monitor.begin()
    with torch.no_grad():
        model.second[0].weight.zero_()
        model.second[0].bias.zero_()
    numbers = monitor.after(1)
    assert "polycode/first/spectrum.exponent" in numbers
    assert "polycode/first/cka.to_first" in numbers
    assert not any(name.startswith("polycode/second/spectrum") for name in numbers)
    assert "constant" in monitor.history.points[-1].problems["second"]
    assert any("constant" in message for message in caplog.messages)


def test_what_could_never_be_measured_is_refused_before_training(tmp_path):
    model = Net()
    for settings in ({"sites": "third"}, {"metrics": ["spectra"]}, {"every": 0}, {"share": 0}):
        with pytest.raises(PolycodeError):
            Monitor(model, **({"data": HELD, "sites": SITES} | settings))
    with pytest.raises(PolycodeError, match="shapes cannot be multiplied"):
        Monitor(model, torch.randn(8, 11), SITES)
    with pytest.raises(DataError, match="no batch"):
        Monitor(model, [], SITES)


def test_a_sharded_model_is_told_and_left_alone(caplog):
    model = Net()
    monitor = Monitor(model, HELD, SITES, ["spectrum"], every=1, share=math.inf)
    model.head.weight.ds_id = 3
    assert monitor.begin() == {}
    assert monitor.after(1) == {}
    assert "spread over processes" in monitor.left_off
    assert any("spread over processes" in message for message in caplog.messages)


def test_a_training_that_is_resumed_goes_on_with_its_history(tmp_path):
    out = tmp_path / "curves"
    _, model, _ = trained(4, metrics=["spectrum", "cka"], out=out)
    assert (out / "training.html").is_file()
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    trained(4, start=4, model=model, metrics=["spectrum", "cka"], out=out)
    assert [p.step for p in History.load(out)] == [0, 2, 4, 6, 8]
    model.load_state_dict(saved)  # back to step 4
    _, _, again = trained(2, start=4, model=model, metrics=["spectrum", "cka"], out=out)
    history = History.load(out)
    assert [p.step for p in history] == [0, 2, 4, 6]
    assert len((out / "superseded.jsonl").read_text().splitlines()) == 2
    # CKA is taken to the first measurement of all, of another process.
    _, _, whole = trained(6, metrics=["spectrum", "cka"])
    value, *_ = history.points[2].numbers["second"]["cka.to_first"]
    known, *_ = whole.history.points[2].numbers["second"]["cka.to_first"]
    assert value == pytest.approx(known, rel=1e-6)
    now, *_ = again.history.points[-1].numbers["second"]["cka.to_first"]
    assert now < 0.999
    assert pc.Analysis.load(out / "first").metrics == ["spectrum", "cka"]


def test_a_history_of_other_rows_is_refused(tmp_path):
    trained(2, metrics=["spectrum"], out=tmp_path / "a")
    for other in (
        {"data": HELD[:200]},
        {"sites": ["first"]},
        {"metrics": ["spectrum", "cka"]},
        {"seed": 1},
    ):
        with pytest.raises(StateError, match="another folder"):
            trained(2, **({"metrics": ["spectrum"], "out": tmp_path / "a"} | other))


def test_a_shuffling_loader_gives_the_same_rows_and_draws_nothing():
    loader = torch.utils.data.DataLoader(HELD, 50, shuffle=True)
    plain, *_ = trained()
    watched, _, monitor = trained(metrics=["spectrum"], data=loader)
    assert watched == plain
    assert len(monitor.history) == 4
    assert np.all(np.diff([p.step for p in monitor.history]) == 2)


def test_numbers_go_to_a_logger_of_ones_own():
    told = []
    trained(2, metrics=["spectrum"], log=lambda numbers, step: told.append((step, len(numbers))))
    assert [step for step, _ in told] == [0, 2]
    assert all(count > 10 for _, count in told)
