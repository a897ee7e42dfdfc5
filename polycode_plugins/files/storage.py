"""The files of a run: run.json, state.safetensors, results.parquet. No pickle anywhere.

Each file appears under its name whole or not at all. run.json holds the checksums of the others, so
a folder in which something is missing or damaged is refused whole. The others are written beside
their names first and moved there once run.json knows them: whenever a process is killed, the folder
holds the earlier run or the later one. What a killed process left waiting is moved, or removed, by
the next one before it writes: no number of kills loses a run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from polycode_plugins.errors import StateError
from polycode_plugins.files import guards, locks, tensors
from polycode_plugins.files.provenance import FORMAT, check_record

RUN, STATE, RESULTS, LOCK = "run.json", "state.safetensors", "results.parquet", ".lock"
REPORT = "report.html"
# A comparison, and the answers that it paid for, may lie in the same folder.
COMPARISON, UNITS, RECORDS = "comparison.json", "units.parquet", "records.safetensors"
ANSWERS = "answers.sqlite"
#: What processes, or passes over the data, have done of a run that is under way.
PARTS, GROUPS = ".parts", ".groups"

Table = list[tuple[str, int, str, dict[str, Any], dict[str, Any]]]


def save(
    folder: Path, state: Mapping[str, Tensor | tensors.Lazy], table: Table, run: dict[str, Any]
) -> Path:
    """Write a run's folder; an existing run in it is replaced. The caller holds its lock.

    Args:
        folder: of the run.
        state: tensors by name. A `Lazy` one is made while it is written, so that a large state
            needs no second copy.
        table: the results, if there are any.
        run: the record.

    Raises:
        StateError: where the folder cannot be written, is a file, or holds files of others.
    """
    prepare(folder)
    settle(folder, folder / RUN, (STATE, RESULTS))
    state_file, results_file = following(folder / STATE), following(folder / RESULTS)
    files = {STATE: write_file(state_file, lambda path: tensors.write(path, state))}
    if table:
        files[RESULTS] = write_file(results_file, lambda path: _write_table(path, table))
    text = json.dumps({"format": FORMAT, **run, "files": files}, indent=1, sort_keys=True)
    write_file(folder / RUN, lambda path: path.write_text(text + "\n", encoding="utf-8"))
    promote(folder, files)
    return folder


def following(path: Path) -> Path:
    """Where a file waits until run.json (or comparison.json) knows it."""
    return path.with_name(f".{path.name}.next")


def promote(folder: Path, names: Iterable[str]) -> None:
    """Move files that wait to their names.

    Raises:
        StateError: when the system refuses. The folder is whole all the same: `checked` finds what
            waits.
    """
    for name in names:
        try:
            following(folder / name).replace(folder / name)
        except OSError as error:
            raise StateError(
                f"cannot write {str(folder / name)!r}: {guards.reason_of(error)}"
            ) from error
    _flush(folder)


def settle(folder: Path, record: Path, names: Iterable[str]) -> None:
    """Finish what a killed process left: move files that its record knows, remove the others.

    Called before anything is written: a file that waits may be the only one that the record knows.

    Args:
        folder: whose lock the caller holds.
        record: run.json or comparison.json, there or not.
        names: of the files beside it.

    Raises:
        StateError: when the system refuses.
    """
    try:
        _settle(folder, record, list(names))
    except OSError as error:
        raise StateError(f"cannot write to {str(folder)!r}: {guards.reason_of(error)}") from error


def _settle(folder: Path, record: Path, names: Sequence[str]) -> None:
    try:
        known = guards.read_json(record).get("files") if record.is_file() else None
    except StateError:  # damaged: it knows no file
        known = None
    expected: dict[str, Any] = known if isinstance(known, dict) else {}
    for name in names:
        waiting = following(folder / name)
        if waiting.is_file():
            if expected.get(name) is not None and _checksum(waiting) == expected[name]:
                promote(folder, [name])
            else:
                waiting.unlink(missing_ok=True)
    for name in (record.name, *names, *(following(folder / name).name for name in names)):
        for draft in _drafts(folder / name):
            draft.unlink(missing_ok=True)


def _drafts(path: Path) -> list[Path]:
    """What writers of this file have left, or are writing."""
    begin = f".{path.name}."
    return [
        other
        for other in path.parent.glob(f"{_literal(begin)}*.tmp")
        if other.name.removeprefix(begin).removesuffix(".tmp").isdecimal()
    ]


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def prepare(folder: Path) -> None:
    """Make the folder; refuse one that holds something other than a run or a comparison."""
    if folder.exists() and not folder.is_dir():
        raise StateError(f"{str(folder)!r} is a file; give the name of a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [p.name for p in folder.iterdir() if not p.name.startswith(".")]
    except OSError as error:
        raise StateError(f"cannot write to {str(folder)!r}: {guards.reason_of(error)}") from error
    if RUN in others or COMPARISON in others:
        return
    parts = {STATE, RESULTS, UNITS, RECORDS}  # of one that was cut off
    foreign = [n for n in others if n not in parts and not n.startswith(ANSWERS)]
    if foreign:
        raise StateError(
            f"{str(folder)!r} holds other files ({foreign[0]}) and no run; give a new folder"
        )


def load(folder: Path) -> tuple[dict[str, Any], tensors.Saved, list[tuple[str, str, Any]]]:
    """The record, the state and the results of a complete run.

    Raises:
        StateError: for a folder that is missing, incomplete, damaged, or of a newer format.
    """
    run, state = load_parts(folder)
    return run, state, _read_table(checked(folder, RESULTS, run))


def load_parts(folder: Path) -> tuple[dict[str, Any], tensors.Saved]:
    """The record and the state of a complete run: what merging reads.

    Raises:
        StateError: as for `load`.
    """
    run = load_run(folder)
    if not run.get("complete"):
        raise StateError(
            f"the run in {str(folder)!r} was interrupted; repeat its command to finish it"
        )
    return run, load_state(folder, run)


def load_run(folder: Path) -> dict[str, Any]:
    """run.json, checked for its format.

    Raises:
        StateError: when it is missing, damaged, or of a newer format.
    """
    path = folder / RUN
    if not path.is_file():
        raise StateError(f"there is no run in {str(folder)!r} ({RUN} is missing); check the path")
    run = guards.read_json(path)
    guards.format_of(path, run, FORMAT)
    if not isinstance(run.get("files"), dict):
        raise StateError(f"{str(path)!r} is damaged: it lists no files")
    check_record(run, path.name)
    return run


def admit(folder: Path, *, fresh: bool) -> None:
    """Refuse, before a model is loaded, a folder that the results could not be written into.

    Raises:
        StateError: for one that is a file, holds other files or, unless `fresh`, a finished run,
            or cannot be written or made.
    """
    if not folder.exists():
        home = next(parent for parent in folder.absolute().parents if parent.exists())
        if not home.is_dir():
            raise StateError(f"cannot write to {str(folder)!r}: {str(home)!r} is a file")
        if not os.access(home, os.W_OK | os.X_OK):
            raise StateError(f"cannot make {str(folder)!r}: {str(home)!r} is not yours to write to")
        return
    prepare(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StateError(f"cannot write to {str(folder)!r}: it is not yours to write to")
    if not fresh:
        refuse_finished(folder)


def refuse_finished(folder: Path) -> None:
    """Raise StateError when the folder holds a finished run."""
    if (folder / RUN).is_file() and load_run(folder).get("complete"):
        report = (
            ""
            if (folder / REPORT).is_file()
            else f"; its report was not written: 'polycode report {folder}' writes it"
        )
        raise StateError(
            f"{str(folder)!r} holds a finished run; read it with Analysis.load, replace it with "
            f"--fresh, or give another folder{report}"
        )


def discard(folder: Path) -> None:
    """Remove a run that is to be made afresh, if it is unfinished, and all parts of it.

    A finished one stays until another is there to replace it. The caller holds the lock.

    Raises:
        StateError: when the system refuses.
    """
    try:
        for name in (PARTS, GROUPS):
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
        if not (folder / RUN).is_file():
            return
        try:
            finished = bool(load_run(folder).get("complete"))
        except StateError:  # damaged, and to be replaced
            finished = False
        if not finished:
            for name in (RUN, STATE, RESULTS):
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise StateError(f"cannot write to {str(folder)!r}: {guards.reason_of(error)}") from error


def load_state(folder: Path, run: dict[str, Any]) -> tensors.Saved:
    """The accumulators' tensors, each read when it is asked for."""
    return tensors.Saved(checked(folder, STATE, run))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one process; a second one is refused.

    The lock goes with its process, so one that was killed leaves nothing to clean up.
    """
    prepare(folder)
    with locks.held(folder / LOCK, folder):
        yield


def write_text(path: Path, text: str) -> Path:
    """Write a text file so that it appears whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"cannot write {str(path)!r}: {guards.reason_of(error)}") from error
    write_file(path, lambda p: p.write_text(text, encoding="utf-8"))
    return path


def write_file(path: Path, writer: Callable[[Path], Any]) -> str:
    """Write through a temporary neighbour, so that the file appears whole; return its checksum.

    Raises:
        StateError: when the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _remove_left(path)
        draft.unlink(missing_ok=True)  # a link somebody left would be written through
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        mode = draft.stat().st_mode
        writer(draft)
        draft.chmod(mode)  # safetensors makes files that only their owner can read
        with open(draft, "rb") as handle:
            os.fsync(handle.fileno())
            checksum = hashlib.file_digest(handle, "sha256").hexdigest()
        os.replace(draft, path)
        _flush(path.parent)
    except Exception as error:
        # safetensors and pyarrow wrap the system's error in types of their own.
        raise StateError(f"cannot write {str(path)!r}: {guards.reason_of(error)}") from error
    finally:
        with suppress(OSError):  # of a disk that is gone; what is left the next writer removes
            draft.unlink(missing_ok=True)
    return checksum


def _remove_left(path: Path) -> None:
    """Remove what writers of this file left when they were killed on this machine."""
    for draft in _drafts(path):
        process = int(draft.name.removesuffix(".tmp").rpartition(".")[2])
        if process != os.getpid() and not _runs(process):
            draft.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's, or no number of a process
        return True
    return True


def _flush(folder: Path) -> None:
    """Have the names in a folder on the disk, where its file system can promise that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:  # some file systems have no such promise
        return
    finally:
        os.close(handle)


def checked(folder: Path, name: str, run: dict[str, Any]) -> Path:
    """The path of a file of a run, if it is the one whose checksum the run's record holds.

    Raises:
        StateError: when it is missing or another one.
    """
    path = folder / name
    expected = run["files"].get(name)
    waiting = following(path)  # the process was killed before it could move it
    if waiting.is_file() and _checksum(waiting) == expected:
        return waiting
    if _checksum(path) != expected:
        raise StateError(
            f"{str(path)!r} is not the file that its run was written with (its checksum differs): "
            "it is damaged or from another run"
        )
    return path


def _checksum(path: Path) -> str:
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise StateError(f"{str(path)!r} cannot be read: {guards.reason_of(error)}") from error


def _write_table(path: Path, table: Table) -> None:
    """One row per site and metric: the scalars in columns, the whole result as JSON."""
    import pandas as pd

    frame = pd.DataFrame(
        [
            {
                "site": site,
                "depth": depth,
                "metric": label,
                **scalars,
                "json": json.dumps(fields),
            }
            for site, depth, label, scalars, fields in table
        ]
    )
    frame.to_parquet(path, index=False)


def _read_table(path: Path) -> list[tuple[str, str, Any]]:
    from pyarrow.parquet import ParquetFile

    wanted = ["site", "metric", "json"]
    try:
        with ParquetFile(path) as file:  # pandas takes six times as long
            table = file.read(columns=wanted, use_threads=False).select(wanted)
        columns = (table[name].to_pylist() for name in wanted)
        return [
            (str(site), str(label), json.loads(fields))
            for site, label, fields in zip(*columns, strict=True)
        ]
    except Exception as error:  # pyarrow raises several types of its own
        raise StateError(f"{str(path)!r} is damaged: {error}") from error
