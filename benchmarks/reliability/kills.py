"""Kills of one process, and of one among several; then the command is left to end."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from children import BROKEN, ENDED, KILLED, once, together
from subjects import Work, analyze, analyzed, whole_run
from tally import Tally, check, conclude

import polycode_plugins as pc

KILLS = 3  # at most, one after the other
_FIRST = 20  # operations in which a run that goes on saves for the first time


def killed(
    name: str, work: Work, result: Callable[[Path], str], whole: Work, trials: int, seed: int,
    home: Path, *, over: bool = False,
) -> Tally:  # fmt: skip
    """Kill, check, kill again, at last let it end."""
    tally, rng = Tally(name), random.Random(f"{name}{seed}")
    began = time.monotonic()
    alone = once(lambda: work(home / "right"))
    took = time.monotonic() - began
    if alone.how != ENDED:
        tally.note(BROKEN, alone.said)
        return tally
    right = result(home / "right")
    for trial in range(trials):
        tally["trials"] += 1
        folder = home / f"{name}-{trial}"
        if over:  # a finished one is there, and is to be replaced
            shutil.copytree(home / "right", folder)
        for number in range(rng.randint(1, KILLS)):
            at, after = rng.randint(1, alone.operations), 0.0
            if number and rng.random() < 0.5:  # while it mends what the last one left
                at = rng.randint(1, _FIRST)
            elif rng.random() < 0.3:
                at, after = 0, rng.uniform(0.0, took)
            end = once(lambda f=folder: work(f), at=at, after=after)  # type: ignore[misc]
            tally["kills"] += end.how == KILLED
            check(tally, folder, whole)
        conclude(tally, once(lambda f=folder: work(f)), folder, result, right)  # type: ignore[misc]
        shutil.rmtree(folder, ignore_errors=True)
    return tally


def close(folder: Path, right: Path) -> bool:
    """Whether two runs are of the same rows, and their eigenvalues equal up to rounding."""
    a, b = pc.Analysis.load(folder), pc.Analysis.load(right)
    same = all(a.run["rows"][k] == b.run["rows"][k] for k in ("count", "digest"))
    pairs = [(a[s, "spectrum"].eigenvalues, b[s, "spectrum"].eigenvalues) for s in b]
    return same and all(abs(x - y).max() <= 1e-6 * y[0] for x, y in pairs)


def torchrun(trials: int, seed: int, home: Path) -> list[Tally]:
    """Several processes: as many as before are bit-equal, others equal up to rounding."""
    tallies, rng = [], random.Random(f"torchrun{seed}")
    once(lambda: analyze(home / "one"))
    for name, worlds in (("torchrun, 2 each time", (2, 2, 2)), ("torchrun, 1 to 3", (1, 2, 3))):
        tally = Tally(name)
        tallies.append(tally)
        reference = home / f"right-{name}"
        alone = together(lambda r=reference: analyze(r), 2)  # type: ignore[misc]
        if alone.how != ENDED:
            tally.note(BROKEN, alone.said)
            continue
        right = analyzed(reference)
        for trial in range(trials):
            tally["trials"] += 1
            folder = home / f"{name}-{trial}"
            for _ in range(rng.randint(1, KILLS)):
                world = rng.choice(worlds)
                rank, at = rng.randrange(world), rng.randint(1, alone.operations)
                end = together(lambda f=folder: analyze(f), world, rank=rank, at=at)  # type: ignore[misc]
                tally["kills"] += end.how == KILLED
                if end.how == BROKEN:
                    tally.note(BROKEN, end.said)
                check(tally, folder, whole_run)
            end = together(lambda f=folder: analyze(f), rng.choice(worlds))  # type: ignore[misc]
            if len(set(worlds)) == 1:
                conclude(tally, end, folder, analyzed, right)
            else:
                conclude(
                    tally, end, folder, lambda f: str(close(f, home / "one")), "True"
                )  # fmt: skip
            shutil.rmtree(folder, ignore_errors=True)
    return tallies
