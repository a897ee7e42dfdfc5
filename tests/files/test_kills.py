"""Whatever moments a process is killed at, a folder holds one whole run, and leftovers go."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import early
import killed_saves
import pytest
import torch
from killed_saves import save

from polycode_plugins.errors import StateError
from polycode_plugins.files import locks, storage


def held(folder: Path) -> int:
    """The number that the folder's run was saved with, in all its files."""
    run, state, table = storage.load(folder)
    assert state["x"].tolist() == [run["batches"]] * 4
    assert [fields for _, _, fields in table] == [{"v": run["batches"]}]
    return int(run["batches"])


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    early.imports("killed_saves", "pandas", "pyarrow.pandas_compat", "pyarrow.parquet")


def killed_at(folder: Path, value: int, operation: int) -> bool:
    """Save in a process that dies before its n-th rename or sync; False where it is done first."""
    done = early.Program(functools.partial(killed_saves.program, folder, value, operation)).end()
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def test_no_three_kills_lose_a_run(tmp_path: Path):
    draw = torch.Generator().manual_seed(3)
    pairs = [(i, j) for i in range(1, 20) for j in range(1, 24, 3)]
    order = torch.randperm(len(pairs), generator=draw).tolist()[:24]
    for number in order:
        folder = tmp_path / str(number)
        save(folder, 1)
        for value, operation in enumerate(pairs[number], 2):
            killed_at(folder, value, operation)
            assert 1 <= held(folder) <= value
        killed_at(folder, 4, 5)
        assert 1 <= held(folder) <= 4
        save(folder, 5)
        assert held(folder) == 5
        assert sorted(p.name for p in folder.iterdir()) == [
            "results.parquet",
            "run.json",
            "state.safetensors",
        ]


def test_a_first_save_that_is_killed_leaves_room_for_the_next(tmp_path: Path):
    operation = 0
    while True:
        operation += 1
        folder = tmp_path / str(operation)
        killed = killed_at(folder, 1, operation)
        save(folder, 2)
        assert held(folder) == 2
        assert not [p.name for p in folder.iterdir() if p.name.startswith(".")]
        if not killed:
            break
    assert operation > 10


def test_a_move_that_the_disk_refuses_loses_nothing(tmp_path: Path, monkeypatch):
    save(tmp_path, 1)

    def stale(path: Path, target: Path) -> None:
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", stale)
        with pytest.raises(StateError, match="stale file handle"):
            save(tmp_path, 2)
    assert held(tmp_path) == 2
    save(tmp_path, 3)
    assert held(tmp_path) == 3


def test_drafts_of_processes_that_run_stay(tmp_path: Path):
    mine = tmp_path / f".report.html.{os.getppid()}.tmp"
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    dead, other = tmp_path / f".report.html.{child}.tmp", tmp_path / ".report.html.old.tmp"
    for path in (mine, dead, other):
        path.write_text("half")
    storage.write_text(tmp_path / "report.html", "whole")
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == sorted([mine.name, other.name, "report.html"])


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_a_lock_never_empties_what_a_link_points_to(tmp_path: Path, link):
    precious = tmp_path / "precious.txt"
    precious.write_text("do not lose this")
    folder = tmp_path / "run"
    folder.mkdir()
    link(precious, folder / storage.LOCK)
    if link is os.symlink:
        with pytest.raises(StateError, match="is a link"), storage.locked(folder):
            pass
    else:
        with storage.locked(folder):
            pass
    assert precious.read_text() == "do not lose this"
    assert (folder / storage.LOCK).exists()


def test_a_draft_is_never_written_through_a_link(tmp_path: Path):
    precious = tmp_path / "precious.txt"
    precious.write_text("do not lose this")
    (tmp_path / f".report.html.{os.getpid()}.tmp").symlink_to(precious)
    storage.write_text(tmp_path / "report.html", "whole")
    assert precious.read_text() == "do not lose this"
    assert (tmp_path / "report.html").read_text() == "whole"
    assert not (tmp_path / "report.html").is_symlink()


def test_a_lock_to_nowhere_makes_no_file_there(tmp_path: Path):
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="is a link"), storage.locked(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_two_parts_of_one_process_do_not_share_a_lock(tmp_path: Path):
    with (
        locks.held(tmp_path / "lock", tmp_path),
        pytest.raises(StateError, match="another process is writing"),
        locks.held(tmp_path / "lock", tmp_path),
    ):
        pass
    with locks.held(tmp_path / "lock", tmp_path):
        pass
    assert not (tmp_path / "lock").exists()
