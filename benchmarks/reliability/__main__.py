"""Kills at seeded moments, faults of a disk and of a server: nothing lost, and the end the same.

    python benchmarks/reliability --trials 20 --seed 0 --only analyze,torchrun

Every run is a fork of this process, so that none pays for the imports. A kill is a SIGKILL before
the n-th file operation (opened for writing, synced, renamed, removed), or at a random time. After
it what is in the folder must be readable; after some kills the command is left to end, and what it
gives is compared bit by bit with an undisturbed run. Prints a table; exits with 1 where anything
was lost, differed or ended in a traceback. Figures of a run of it are in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import filelock  # noqa: F401 - this and others before the forks, each of which would pay for it
import sklearn.linear_model  # noqa: F401
import subjects
import torch
import torch.distributed
import tqdm  # noqa: F401
from disks import faulty, real_disks
from kills import killed, torchrun
from servers import unsteady
from subjects import (
    Work,
    analyze,
    analyzed,
    compare,
    compared,
    reproduce,
    reproduced,
    whole_comparison,
    whole_run,
)
from tally import Tally

from polycode_plugins.experiments import training
from polycode_plugins.runs import passes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    kinds = ("analyze", "compare", "reproduce", "torchrun", "faults", "disks", "server")
    parser.add_argument("--trials", type=int, default=20, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(kinds), help="kinds, comma-separated")
    parser.add_argument("--limit", type=int, default=250, help="texts of a comparison")
    parser.add_argument("--rows", type=int, default=subjects.ROWS, help="of an analysis")
    options = parser.parse_args()
    subjects.ROWS = options.rows
    torch.set_num_threads(1)  # threads do not survive a fork
    passes.CHECKPOINT_SECONDS = training.SAVE_SECONDS = 0.0  # after every batch, every step
    only, n, seed = options.only.split(","), options.trials, options.seed
    tallies: list[Tally] = []
    print("| | trials | kills | equal | refused | lost | different | traceback |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)

        def room(kind: str) -> Path:
            (home / kind).mkdir()
            return home / kind

        def first(work: Work, name: str) -> None:
            work(home / name)  # in this process: what it imports on its way no fork has to

        def show(made: list[Tally]) -> None:
            tallies.extend(made)
            for tally in made:
                print(tally.line(), flush=True)

        def fresh(work: Callable[..., None]) -> Work:
            return lambda folder: work(folder, fresh=True)

        if {"analyze", "torchrun", "faults", "disks"} & set(only):
            first(analyze, "first-analyze")
        if "analyze" in only:
            given = (analyzed, whole_run, n, seed)
            show([killed("analyze", analyze, *given, room("analyze"))])
            show([killed("analyze --fresh", fresh(analyze), *given, room("fresh"), over=True)])
        if "compare" in only:
            work = functools.partial(compare, limit=options.limit)
            first(work, "first-compare")
            given = (compared, whole_comparison, n, seed)
            show([killed("compare", work, *given, room("compare"))])
            show([killed("compare --fresh", fresh(work), *given, room("again"), over=True)])
        if "reproduce" in only:
            first(reproduce, "first-reproduce")
            whole: Work = lambda folder: None  # noqa: E731 - the end shows what was lost
            given_too = (reproduced, whole, n, seed)
            show([killed("reproduce", reproduce, *given_too, room("reproduce"))])
            show([killed("reproduce --fresh", fresh(reproduce), *given_too, room("r"), over=True)])
        if "torchrun" in only:
            show(torchrun(n, seed, room("torchrun")))
        if "faults" in only:
            show(faulty(max(1, n // 4), seed, room("faults")))
        if "server" in only:
            show([unsteady(max(1, n // 4), seed, room("server"))])
        if "disks" in only and os.geteuid() == 0 and sys.platform == "linux":
            show(real_disks(max(1, n // 4), seed, room("disks")))
    return int(any(tally.bad for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
