"""As many requests at once as a server keeps up with, on a clock that is not ours."""

from __future__ import annotations

import heapq

import pytest

from polycode_plugins.explainers.language_model.transport import pace as module
from polycode_plugins.explainers.language_model.transport.pace import Pace


def simulated(monkeypatch, slots: int, seconds: float, timeout: float, count: int = 300):
    """The longest wait, the time of all, and the largest limit, of a server with so many slots."""
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    pace = Pace(32, timeout)
    pace._waiting.append(None)  # there is always more to send
    monkeypatch.setattr(pace, "_wake", lambda: None)
    free = [0.0] * slots
    under_way: list[tuple[float, float]] = []
    longest, largest, sent, done = 0.0, 0, 0, 0
    while done < count:
        while len(under_way) < pace.limit and sent < count:
            end = max(clock[0], heapq.heappop(free)) + seconds
            heapq.heappush(free, end)
            heapq.heappush(under_way, (end, clock[0]))
            sent += 1
        end, began = heapq.heappop(under_way)
        clock[0] = max(clock[0], end)
        longest, largest = max(longest, clock[0] - began), max(largest, pace.limit)
        pace.answered("simulate", began)
        done += 1
    return longest, clock[0], largest


@pytest.mark.parametrize("seconds", [0.5, 5.0, 15.0, 60.0])
def test_one_slot_never_runs_into_the_time_out(monkeypatch, seconds):
    longest, took, _ = simulated(monkeypatch, 1, seconds, timeout=120.0)
    assert longest < 120 / 2 + seconds
    assert took == pytest.approx(300 * seconds)  # it never waits for us


@pytest.mark.parametrize("seconds", [0.05, 5.0, 40.0])
def test_a_server_that_takes_all_gets_all(monkeypatch, seconds):
    longest, took, largest = simulated(monkeypatch, 1000, seconds, timeout=120.0)
    assert largest == 32
    assert longest == pytest.approx(seconds)
    assert took < (300 / 32 + 8) * seconds  # but for the start


def test_slots_in_between_are_filled(monkeypatch):
    longest, took, _ = simulated(monkeypatch, 8, 10.0, timeout=120.0)
    assert took < 1.15 * 300 / 8 * 10
    assert longest < 60


def test_time_outs_and_too_many_requests_halve_it_once(monkeypatch):
    clock = [10.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    pace = Pace(32, 120.0)
    pace.limit = 32
    pace.overloaded(began=1.0)
    pace.overloaded(began=2.0)  # sent before the first came back
    assert pace.limit == 16
    clock[0] = 20.0
    pace.overloaded(began=15.0)
    assert pace.limit == 8
    for began in range(30, 40):
        clock[0] = began + 5.0
        pace.overloaded(began=clock[0] - 1)
    assert pace.limit == 1


def test_what_is_computed_here_has_no_pace():
    assert Pace(7, None).limit == 7
