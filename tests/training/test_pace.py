"""Measurements stay within their share of the time, and the interval that results is told."""

from __future__ import annotations

import itertools
import math

import pytest

from polycode_plugins.training.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def trained(pace: Pace, clock: Clock, steps: int, per_step: float, cost: float) -> list[int]:
    """The steps at which something was measured, in a training with these costs."""
    measured = [0]
    pace.begin(0)
    clock.now += cost
    pace.took(cost)
    for step in range(1, steps + 1):
        clock.now += per_step
        if pace.due(step):
            measured.append(step)
            clock.now += cost
            pace.took(cost)
    return measured


def test_what_fits_is_measured_every_so_many_steps():
    clock = Clock()
    pace = Pace(100, 0.05, clock)
    # 100 steps take 100 s and a measurement 1 s: a hundredth.
    assert trained(pace, clock, 500, 1.0, 1.0) == [0, 100, 200, 300, 400, 500]
    assert pace.used == pytest.approx(6 / 500)


def test_what_does_not_fit_is_left_out():
    clock = Clock()
    pace = Pace(10, 0.05, clock)
    # 10 steps take 1 s and a measurement 1 s: 20 s of training, 200 steps, for each.
    found = trained(pace, clock, 2000, 0.1, 1.0)
    assert found[0] == 0
    assert all(step % 10 == 0 for step in found)
    assert {b - a for a, b in itertools.pairwise(found[1:])} == {200}
    assert pace.used is not None
    assert pace.used <= 0.05
    assert pace.interval(2000) == 200


def test_a_measurement_that_grows_stretches_the_interval():
    clock = Clock()
    pace = Pace(1, 0.1, clock)
    pace.begin(0)
    costs, step = [], 0
    while step < 3000:
        step += 1
        clock.now += 0.1
        if pace.due(step):
            cost = 0.05 if step < 1000 else 0.5
            clock.now += cost
            pace.took(cost)
            costs.append((step, cost))
    assert pace.used is not None
    assert pace.used <= 0.1 + 0.5 / 300
    early = [s for s, _ in costs if s < 1000]
    late = [s for s, _ in costs if s > 1500]
    assert len(early) > 150
    assert len(late) <= 1500 / 50 + 1


def test_the_interval_is_told_once_and_again_when_it_changes():
    clock = Clock()
    pace = Pace(10, 0.05, clock)
    pace.begin(0)
    pace.took(1.0)
    clock.now += 1.0
    said = []
    for step in range(1, 41):
        clock.now += 0.1
        assert not pace.due(step)
        said.append(pace.put_off(step))
    told = [(step, text) for step, text in enumerate(said, 1) if text]
    assert len(told) == 1
    step, text = told[0]
    assert step == 10
    assert "may be 5%" in text
    assert "about every 200 steps" in text
    for step in range(41, 61):
        clock.now += 10.0  # training is a hundred times slower now
        said.append(pace.put_off(step) if not pace.due(step) else "")
    assert sum(bool(text) for text in said) == 1  # there is time now, and nothing is left out


def test_nothing_is_left_out_without_a_limit():
    clock = Clock()
    pace = Pace(2, math.inf, clock)
    assert trained(pace, clock, 6, 0.0, 5.0) == [0, 2, 4, 6]


def test_the_share_is_of_training_alone():
    clock = Clock()
    pace = Pace(1, 0.5, clock)
    pace.begin(7)
    assert pace.used is None
    clock.now += 12.0
    pace.took(2.0)
    assert pace.trained == pytest.approx(10.0)
    assert pace.used == pytest.approx(0.2)
