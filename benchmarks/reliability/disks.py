"""Disks that are full, read-only, stale, broken or slow: made up in the process, and real ones."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from children import BROKEN, KILLED, End, ended, fork, once
from subjects import analyze, analyzed, whole_run
from tally import Tally, check, conclude

FAULTS = {
    "full": errno.ENOSPC,
    "read-only": errno.EROFS,
    "stale handle": errno.ESTALE,
    "input/output error": errno.EIO,
    "slow": 0,
}


def faulty(trials: int, seed: int, home: Path) -> list[Tally]:
    """A disk that fails from a moment on, or is slow: one sentence, nothing lost, then the end."""
    tallies, rng = [], random.Random(f"faults{seed}")
    alone = once(lambda: analyze(home / "right"))
    right = analyzed(home / "right")
    for name, number in FAULTS.items():
        tally = Tally(f"disk: {name}")
        tallies.append(tally)
        for trial in range(trials):
            tally["trials"] += 1
            folder, begin = home / f"{name}-{trial}", rng.randint(1, alone.operations)

            def fail(at: int, begin: int = begin, number: int = number) -> None:
                if at >= begin and number:
                    raise OSError(number, os.strerror(number))
                if not number:
                    time.sleep(0.003)

            tally.note(_single(ended(*fork(lambda f=folder: analyze(f), fail))))  # type: ignore[misc]
            check(tally, folder, whole_run)
            conclude(tally, once(lambda f=folder: analyze(f)), folder, analyzed, right)  # type: ignore[misc]
            shutil.rmtree(folder, ignore_errors=True)
    return tallies


def _single(end: End) -> str:
    """How a run on a faulty disk ended: a refusal has to be one sentence."""
    return BROKEN if end.how == BROKEN or "\n" in end.said else end.how


@contextmanager
def small_disk(folder: Path, size: str):  # type: ignore[no-untyped-def]
    """A file system of its own; needs root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def real_disks(trials: int, seed: int, home: Path) -> list[Tally]:
    """A disk that is full, then has room; one that is read-only, then is not."""
    rng = random.Random(f"disks{seed}")
    once(lambda: analyze(home / "right"))
    right = analyzed(home / "right")
    full, frozen = Tally("tmpfs that is full"), Tally("tmpfs that is read-only")
    for trial in range(trials):
        disk = home / f"disk-{trial}"
        full["trials"] += 1
        # Room for a run and for the draft of the next one beside it, once the filler is gone.
        room = 2 * sum(file.stat().st_size for file in (home / "right").iterdir()) + 2**17
        with small_disk(disk, f"{room}"):
            filler, folder = disk / "filler", disk / "run"
            filler.write_bytes(b"x" * rng.randrange(room * 6 // 10, room * 9 // 10))
            full.note(_single(once(lambda f=folder: analyze(f))))  # type: ignore[misc]
            check(full, folder, whole_run)
            filler.unlink()
            conclude(full, once(lambda f=folder: analyze(f)), folder, analyzed, right)  # type: ignore[misc]
        disk = home / f"frozen-{trial}"
        frozen["trials"] += 1
        with small_disk(disk, "2m"):
            folder = disk / "run"
            end = once(lambda f=folder: analyze(f), at=rng.randint(20, 200))  # type: ignore[misc]
            frozen["kills"] += end.how == KILLED
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            frozen.note(_single(once(lambda f=folder: analyze(f))))  # type: ignore[misc]
            check(frozen, folder, whole_run)
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            conclude(frozen, once(lambda f=folder: analyze(f)), folder, analyzed, right)  # type: ignore[misc]
    return [full, frozen]
