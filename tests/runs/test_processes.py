"""Several processes that are killed and resumed, and a run that is killed: the harness in small."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import forks
import pytest

from polycode_plugins.files import storage

HARNESS = Path(__file__).parents[2] / "benchmarks" / "reliability"


def run(*arguments: str, planted: Callable[[], None] = lambda: None) -> forks.Ended:
    def work() -> None:
        planted()
        sys.argv = ["reliability", *arguments]
        runpy.run_path(str(HARNESS), run_name="__main__")

    return forks.Program(work).end()


@pytest.mark.parametrize(
    "kind", ["torchrun", "analyze", "compare", "reproduce", "faults", "server"]
)
def test_nothing_is_lost_and_the_end_is_the_same(kind: str):
    trials = "2" if kind == "analyze" else "1"
    done = run("--only", kind, "--trials", trials, "--seed", "5", "--limit", "80")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) > 2


def test_the_harness_sees_a_loss():
    def planted() -> None:  # files do not wait for run.json, but replace the earlier ones before
        storage.following = lambda path: path

    done = run("--only", "analyze", "--trials", "2", planted=planted)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "analyze: lost: " in done.stdout
