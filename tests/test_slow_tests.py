"""The list of slow tests."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import slow_tests

ROOT = Path(__file__).parents[1]


def test_what_ran_is_listed_anew_and_what_did_not_stays(tmp_path):
    path = tmp_path / "slow.txt"
    path.write_text("a.py::elsewhere\na.py::quick_by_now\n")
    noted = slow_tests.Noted(path)
    over, under = slow_tests.SLOW_SECONDS * 0.6, slow_tests.SLOW_SECONDS * 0.4
    for test, seconds in (
        ("a.py::setup_and_call", over),
        ("a.py::setup_and_call", over),
        ("a.py::one_of_many[x]", under),
        ("a.py::one_of_many[y]", 2 * over),
        ("a.py::quick_by_now[x]", over),
        ("a.py::quick_by_now[y]", over),
    ):
        noted.pytest_runtest_logreport(SimpleNamespace(nodeid=test, duration=seconds))
    noted.pytest_sessionfinish()
    assert path.read_text().splitlines() == [
        "a.py::elsewhere",
        "a.py::one_of_many",
        "a.py::setup_and_call",
    ]


def test_what_is_listed_exists():
    listed = slow_tests.listed()
    assert listed
    gone = [
        test
        for test in sorted(listed)
        if not (file := ROOT / test.split("::")[0]).is_file()
        or f"def {test.split('::')[-1]}(" not in file.read_text()
    ]
    assert gone == []
