"""What was measured over steps is kept whole, read again, and goes back with the training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polycode_plugins.errors import StateError
from polycode_plugins.training.history import HISTORY, SUPERSEDED, History, Point

RECORD = {
    "sites": ["a", "b"],
    "model": {"type": "Net"},
    "metrics": [{"metric": "spectrum", "options": {}}],
    "rows": {"count": 3, "digest": "0" * 64, "ranges": [[0, 1, 3]]},
    "seed": 0,
}


def point(step: int) -> Point:
    numbers = {
        "a": {"spectrum.exponent": (1.0 + step / 100, 0.5, 1.5), "cka.to_first": (0.9, None, None)}
    }
    return Point(step, 0.25, numbers, {"b": "it is constant"})


def written(folder: Path, *steps: int) -> History:
    history = History(RECORD)
    history.begin_file(folder)
    for step in steps:
        history.append(point(step), folder)
    return history


def test_it_is_read_as_it_was_written(tmp_path):
    history = written(tmp_path, 0, 10, 20)
    again = History.load(tmp_path)
    assert again.points == history.points
    assert again.sites == ["a", "b"]
    assert again.quantities() == ["spectrum.exponent", "cka.to_first"]
    steps, numbers = again.curve("a", "spectrum.exponent")
    assert steps == [0, 10, 20]
    assert numbers == [(1.0, 0.5, 1.5), (1.1, 0.5, 1.5), (1.2, 0.5, 1.5)]
    assert again.curve("b", "spectrum.exponent") == ([], [])
    frame = again.to_dataframe()
    assert list(frame.columns) == ["step", "site", "quantity", "value", "low", "high"]
    assert len(frame) == 6
    assert frame["low"].isna().sum() == 3
    assert repr(again) == "History(3 measurements, steps 0 to 20)"


def test_a_logger_gets_numbers_with_the_ends_of_their_intervals():
    assert point(10).flat() == {
        "polycode/a/spectrum.exponent": 1.1,
        "polycode/a/spectrum.exponent_low": 0.5,
        "polycode/a/spectrum.exponent_high": 1.5,
        "polycode/a/cka.to_first": 0.9,
    }


def test_a_line_that_a_kill_cut_off_is_no_point(tmp_path):
    written(tmp_path, 0, 10)
    with (tmp_path / HISTORY).open("a") as file:
        file.write('{"step": 20, "sec')
    again = History.load(tmp_path)
    assert [p.step for p in again] == [0, 10]
    again.begin_file(tmp_path)
    again.append(point(20), tmp_path)
    assert [p.step for p in History.load(tmp_path)] == [0, 10, 20]


def test_points_after_the_step_that_training_went_back_to_are_set_aside(tmp_path):
    history = written(tmp_path, 0, 10, 20, 30)
    assert [p.step for p in history.go_back(15, tmp_path)] == [20, 30]
    assert [p.step for p in History.load(tmp_path)] == [0, 10]
    aside = (tmp_path / SUPERSEDED).read_text().splitlines()
    assert [json.loads(line)["step"] for line in aside] == [20, 30]
    assert history.go_back(15, tmp_path) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not begin with a record"),
        ("[1]\n", "does not begin with a record"),
        ('{"format": 99}\n', "reads up to 1"),
        ('{"format": 1}\n', "not whole"),
        ('{"format": 1, "sites": [1], "model": {}, "rows": {}, "metrics": []}\n', "misstates"),
        ("{\n", "damaged"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, text, said):
    (tmp_path / HISTORY).write_text(text)
    with pytest.raises(StateError, match=said):
        History.load(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1}',
        '{"step": "1", "seconds": 1.0, "numbers": {}, "problems": {}}',
        '{"step": 1, "seconds": 1.0, "numbers": {"a": {"x": [1.0]}}, "problems": {}}',
        '{"step": 1, "seconds": 1.0, "numbers": {"a": {"x": [null, 1, 2]}}, "problems": {}}',
        '{"step": 1, "seconds": 1.0, "numbers": {"a": 3}, "problems": {}}',
        "7",
    ],
)
def test_a_damaged_point_is_refused(tmp_path, line):
    written(tmp_path, 0)
    with (tmp_path / HISTORY).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(StateError, match="history"):
        History.load(tmp_path)


def test_a_folder_without_one_is_refused(tmp_path):
    with pytest.raises(StateError, match="cannot be read"):
        History.load(tmp_path)
