"""Tests that are slow, by measurement: `pytest --note-slow` writes the list anew.

A fixture that several share counts for the test that comes first; noting the quick tests once more
finds who comes first where the slow ones are left out.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

SLOW_SECONDS = 0.1
_LIST = Path(__file__).parents[1] / "slow_tests.txt"


class Noted:
    """Seconds that each test took, and the list that they make with what did not run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._took: defaultdict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._took[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        slow = {_name(test) for test, took in self._took.items() if took > SLOW_SECONDS}
        others = listed(self.path) - {_name(test) for test in self._took}
        self.path.write_text("".join(f"{test}\n" for test in sorted(slow | others)))


def listed(path: Path = _LIST) -> set[str]:
    """The tests of the list, each for all of its parameters."""
    return set(path.read_text().splitlines()) if path.exists() else set()


def _name(test: str) -> str:
    return test.partition("[")[0]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--note-slow", action="store_true", help="write tests/slow_tests.txt anew")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--note-slow") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Noted(_LIST))


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = listed()
    for item in items:
        if _name(item.nodeid) in slow:
            item.add_marker("slow")
