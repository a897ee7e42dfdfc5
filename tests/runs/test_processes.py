"""Several processes that are killed and resumed, and a run that is killed: the harness in small."""

from __future__ import annotations

import functools

import early
import forks
import pytest
import reliability

SMALL = ("--limit", "80", "--rows", "80")
LARGE = ("compare", "reproduce", "server")  # what they import most workers have imported


def run(*arguments: str, late: bool = False, large: bool = False) -> forks.Ended:
    """The harness, in a fork of this process where it is large."""
    work = functools.partial(reliability.program, *arguments, *SMALL, late=late)
    if large:
        return forks.Program(work).end()
    early.imports(*reliability.IMPORTS)
    return early.Program(work).end()


@pytest.mark.parametrize(
    "kind", ["torchrun", "analyze", "compare", "reproduce", "faults", "server"]
)
def test_nothing_is_lost_and_the_end_is_the_same(kind: str):
    trials = "2" if kind == "analyze" else "1"
    done = run("--only", kind, "--trials", trials, "--seed", "5", large=kind in LARGE)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) > 2


def test_the_harness_sees_a_loss():
    done = run("--only", "analyze", "--trials", "2", "--seed", "1", late=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "analyze: lost: " in done.stdout
