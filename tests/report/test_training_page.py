"""The page of a training run: curves, what moved most, what could not be measured."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from report_reading import faults, read

from polycode_plugins.commands.main import main
from polycode_plugins.training.history import History, Point

HOSTILE = "<b>layer</b>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three sites over six measurements: one that falls, one that stays, one that has failed."""
    record = {
        "sites": ["blocks.0", HOSTILE, "blocks.2"],
        "model": {"type": "Net", "adapter": "module", "parameters": 1234},
        "metrics": [{"metric": "spectrum", "options": {}}],
        "rows": {"count": 40, "digest": "0" * 64, "ranges": [[0, 1, 40]]},
        "seed": 0,
    }
    history = History(record)
    history.begin_file(tmp_path)
    for step in range(0, 600, 100):
        exponent = 2.0 * math.exp(-step / 200) + 0.5
        numbers = {
            "blocks.0": {
                "spectrum.exponent": (exponent, exponent - 0.1, exponent + 0.1),
                "cka.to_first": (1 - step / 1000, None, None),
            },
            HOSTILE: {"spectrum.exponent": (1.0, 0.9, 1.1)},
        }
        history.append(Point(step, 0.5, numbers, {"blocks.2": "it is constant"}), tmp_path)
    return tmp_path


def test_curves_of_every_quantity_and_what_moved_most(folder, tmp_path):
    page = History.load(folder).report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert faults(page) == []
    reading = read(page)
    assert reading.one("h1").text == "Over the steps of training (Net)"
    assert [e.attributes["id"] for e in reading.all("section")][:2] == ["found", "metric-0"]
    found = reading.one("section", id="found").text
    assert "measured 6 times on the same 40 rows; this took 3 seconds in all" in found
    assert "moves most at blocks.0: from 2.5 [2.4, 2.6] to 0.6642 [0.5642, 0.7642]." in found
    assert "step 100, blocks.2: it is constant" in found
    charts = reading.figures()
    assert len(charts) == 2
    (exponents,) = [c for name, c in charts.items() if "exponent" in name]
    curves = {trace["meta"]: trace for trace in exponents["data"] if "meta" in trace}
    assert set(curves) == {"curve-0", "curve-1"}  # blocks.2 has no number


def test_what_moves_within_its_intervals_says_so(folder, tmp_path):
    history = History.load(folder)
    for value in (1.0, 1.15):
        numbers = {"blocks.0": {"spectrum.effective_rank": (value, value - 0.1, value + 0.1)}}
        history.append(Point(700 + int(value * 100), 0.5, numbers, {}), tmp_path)
    page = history.report(tmp_path / "page.html").read_text(encoding="utf-8")
    found = read(page).one("section", id="found").text
    assert "to 1.15 [1.05, 1.25], whose intervals meet." in found


def test_the_command_finds_the_history_of_a_folder(folder, tmp_path, capsys):
    assert main(["report", str(folder), "--out", str(tmp_path / "again.html")]) == 0
    assert "Over the steps of training" in (tmp_path / "again.html").read_text(encoding="utf-8")


def test_a_training_under_way_and_one_without_a_measurement_have_pages(folder, tmp_path):
    path = folder / "history.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(text + '{"step": 600, "sec', encoding="utf-8")  # being written
    assert len(History.load(folder)) == 6
    path.write_text(text.split("\n")[0] + "\n", encoding="utf-8")
    page = History.load(folder).report(tmp_path / "p.html").read_text(encoding="utf-8")
    assert "0 measurements" in read(page).one("body").text
