"""Several processes that are killed and resumed, and a run that is killed: the harness in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parents[2] / "benchmarks" / "reliability"


def run(*arguments: str, planted: str = "") -> subprocess.CompletedProcess[str]:
    program = (
        f"import runpy, sys\n{planted}\n"
        f"sys.argv = {['reliability', *arguments]!r}\n"
        f"runpy.run_path({str(HARNESS)!r}, run_name='__main__')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["torchrun", "analyze", "compare", "reproduce", "faults", "server"]
)
def test_nothing_is_lost_and_the_end_is_the_same(kind: str):
    trials = "1" if kind in ("compare", "server") else "2"
    done = run("--only", kind, "--trials", trials, "--seed", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) > 2


def test_the_harness_sees_a_loss():
    # Files that do not wait for run.json, but replace the earlier ones before it knows them.
    planted = "from polycode_plugins.files import storage\nstorage.following = lambda path: path\n"
    done = run("--only", "analyze", "--trials", "4", planted=planted)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "analyze: lost: " in done.stdout
