"""Run an experiment into a folder: numbers as CSV, the figure as PDF and PNG, the verdicts.

A finished folder is read, not computed again; an interrupted one goes on. What is in it was made by
exactly the settings, seed and scale asked for, or it is refused.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polycode_plugins._version import __version__
from polycode_plugins.errors import DataError, PolycodeError, StateError, near
from polycode_plugins.experiments.base import SCALES, Experiment, Scale, read_table
from polycode_plugins.experiments.claims import Numbers, Verdict, judge
from polycode_plugins.files import guards, locks, storage

RECORD, VERDICTS, STATES = "experiment.json", "verdicts.csv", "states"


@dataclass(frozen=True, eq=False)
class Reproduction:
    """A figure that was made again.

    Attributes:
        experiment: what it is.
        scale, seed, settings: what it was made with.
        numbers: the tables behind the figure, by name.
        verdicts: on each of the paper's claims about it.
        folder: where numbers, figure and verdicts are.
        seconds: that computing the numbers took, over all tries.
    """

    experiment: Experiment
    scale: Scale
    seed: int
    settings: Any
    numbers: Numbers
    verdicts: list[Verdict]
    folder: Path
    seconds: float

    @property
    def png(self) -> Path:
        """The figure's picture."""
        return self.folder / f"{self.experiment.name}.png"

    def table(self) -> Any:
        """The verdicts as a DataFrame."""
        import pandas as pd

        return pd.DataFrame([verdict.row() for verdict in self.verdicts])


def reproduce(
    name: str | Experiment,
    *,
    scale: Scale = "laptop",
    seed: int = 0,
    out: str | Path = "out/reproduce",
    changes: Mapping[str, Any] | None = None,
    fresh: bool = False,
) -> Reproduction:
    """Make a figure again in `out`/NAME, or read it there if it is finished.

    Args:
        name: of an experiment, or an experiment of your own.
        scale: "smoke", "laptop" or "paper".
        seed: of everything that is drawn; the same seed gives the same numbers on one machine.
        out: the folder that holds a folder for each experiment.
        changes: settings that differ from those of the scale.
        fresh: compute again whatever is there.

    Raises:
        PolycodeError: for an unknown name, scale or setting.
        StateError: for a folder made with another seed, scale or settings, or one that cannot be
            written.
    """
    from polycode_plugins.experiments import get

    experiment = get(name) if isinstance(name, str) else name
    if scale not in SCALES:
        raise PolycodeError(f"scale is {', '.join(SCALES)}, not {scale!r}{near(scale, SCALES)}")
    settings = _settings(experiment, scale, changes or {})
    asked = _asked(experiment, scale, seed, settings)
    folder = Path(out) / _file_name(experiment.name, "an experiment")
    with _held(folder):
        if fresh and folder.is_dir() and (folder / RECORD).is_file():
            folder.replace(_discarded(folder))  # at once: half a folder would be nobody's
        shutil.rmtree(_discarded(folder), ignore_errors=True)
        record = _record(folder, asked)
        if not record["complete"]:
            numbers, seconds = _compute(experiment, settings, seed, folder, record, asked)
        else:
            numbers, seconds = _numbers(folder, record["tables"]), float(record["seconds"])
        shutil.rmtree(folder / STATES, ignore_errors=True)
        verdicts = judge(experiment.claims, numbers)
        made = Reproduction(experiment, scale, seed, settings, numbers, verdicts, folder, seconds)
        storage.write_text(folder / VERDICTS, made.table().to_csv(index=False))
        _draw(made)
    return made


def _file_name(name: str, what: str) -> str:
    """The name, where a file of that name lies in the folder that it is for."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise DataError(
            f"{what} is called {guards.shown(name[:60])!r}, which is no name of a file; use "
            "letters, digits and hyphens"
        )
    return name


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold an experiment's folder for one process, by a file beside it: the folder may go."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StateError(
            f"cannot write to {str(folder.parent)!r}: {reason}; give a folder that can be written "
            "with --out"
        ) from error
    with locks.held(folder.with_name(f".{folder.name}.lock"), folder):
        yield


def _discarded(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.discarded")


def finished(name: str, *, scale: Scale, seed: int, out: str | Path) -> Reproduction | None:
    """The figure as it is in `out`, with the scale's own settings; None where it is not finished.

    Raises:
        PluginError: for an unknown name, or one that does not import.
    """
    from polycode_plugins.experiments import get

    experiment = get(name)
    folder, settings = Path(out) / experiment.name, experiment.settings[scale]
    if not (folder / f"{experiment.name}.png").is_file() or not (folder / RECORD).is_file():
        return None
    try:
        record = _record(folder, _asked(experiment, scale, seed, settings))
        numbers = _numbers(folder, record["tables"]) if record["complete"] else None
    except StateError:  # of another seed or scale, or damaged
        return None
    if numbers is None:
        return None
    verdicts, seconds = judge(experiment.claims, numbers), float(record["seconds"])
    return Reproduction(experiment, scale, seed, settings, numbers, verdicts, folder, seconds)


def _asked(experiment: Experiment, scale: Scale, seed: int, settings: Any) -> dict[str, Any]:
    asked = {
        "experiment": experiment.name,
        "polycode-plugins": __version__,
        "scale": scale,
        "seed": seed,
        "settings": dataclasses.asdict(settings),
    }
    return dict(json.loads(json.dumps(asked)))


def _settings(experiment: Experiment, scale: Scale, changes: Mapping[str, Any]) -> Any:
    settings = experiment.settings[scale]
    known = [f.name for f in dataclasses.fields(settings)]
    for field, value in changes.items():
        if field not in known:
            raise DataError(
                f"{experiment.name} has no setting {field!r}{near(field, known)}; "
                f"it has {', '.join(known)}"
            )
        was = getattr(settings, field)
        if isinstance(was, float) and isinstance(value, int):
            value = float(value)
        if type(was) is not type(value):
            raise DataError(
                f"the setting {field} of {experiment.name} is such as {was!r}, not {value!r}"
            )
        settings = dataclasses.replace(settings, **{field: value})
    return settings


def _record(folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The folder's record, made where there is none; refused where it is of something else."""
    path = folder / RECORD
    if not path.is_file():
        if folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir()):
            raise StateError(f"{str(folder)!r} holds other files; give another folder with --out")
        record = {**asked, "complete": False, "seconds": 0.0}
        storage.write_text(path, json.dumps(record, indent=1))
        return record
    try:
        record = guards.read_json(path)
        differs = [key for key, value in asked.items() if record[key] != value]
        types = {"complete": bool, "seconds": float, "tables": list[str]}
        guards.require_types(record, types, path.name)
        needed = types if record["complete"] else ("complete", "seconds")
        lacking = [field for field in needed if field not in record]
        if lacking or any(Path(table).name != table for table in record.get("tables", [])):
            raise StateError(f"{path.name} lacks or misstates {(lacking or ['tables'])[0]}")
    except (StateError, KeyError) as error:
        raise StateError(f"{str(path)!r} is damaged ({error}); repeat with --fresh") from error
    if differs:
        raise StateError(
            f"{str(folder)!r} was made with another {' and '.join(differs)}; give another folder "
            "with --out, or --fresh to compute again"
        )
    return dict(record)


def _numbers(folder: Path, tables: Sequence[str]) -> Numbers:
    """The tables of a finished folder."""
    try:
        return {table: read_table(folder / f"{table}.csv") for table in tables}
    except (OSError, ValueError) as error:  # pandas's errors of parsing are ValueErrors
        raise StateError(
            f"a table in {str(folder)!r} cannot be read ({error}); repeat with --fresh"
        ) from error


def _compute(
    experiment: Experiment,
    settings: Any,
    seed: int,
    folder: Path,
    record: dict[str, Any],
    asked: dict[str, Any],
) -> tuple[Numbers, float]:
    states = folder / STATES
    states.mkdir(exist_ok=True)
    started = time.monotonic()

    def note(**fields: Any) -> float:
        seconds = float(record["seconds"]) + time.monotonic() - started
        made = {**asked, "seconds": round(seconds, 1), **fields}
        storage.write_text(folder / RECORD, json.dumps(made, indent=1))
        return seconds

    try:
        numbers = experiment.run(settings, seed, states)
    except BaseException:
        note(complete=False)
        raise
    for table in numbers:
        _file_name(table, f"a table of {experiment.name}")
    for table, frame in numbers.items():
        storage.write_text(folder / f"{table}.csv", frame.to_csv(index=False))
    seconds = note(complete=True, tables=list(numbers))
    # Read back, so that a later reading of the folder cannot differ from this one.
    return {table: read_table(folder / f"{table}.csv") for table in numbers}, seconds


def _draw(made: Reproduction) -> None:
    from polycode_plugins.experiments import drawing

    with drawing.style():
        figure = made.experiment.figure(made.numbers)
    drawing.save(figure, made.folder / made.experiment.name)
