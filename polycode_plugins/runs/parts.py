"""What each process of a run has done so far: checkpoints to go on from.

Each process saves what it has seen in a folder of its own (the first one in the run's), with a
record like that of a run. Whoever goes on reads all of them: as many processes as before take one
each, bit by bit where they were; another number of them shares them out. A new part names those
that it holds, so that a kill before these are removed counts nothing twice.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polycode_plugins.errors import StateError
from polycode_plugins.files import guards, storage
from polycode_plugins.files.provenance import Rows

ROOT = ""  # the name of the part in the run's own folder


@dataclass(frozen=True)
class Part:
    """A checkpoint of one process.

    Attributes:
        name: of its folder among the parts; `ROOT` for the run's own.
        run: its record.
    """

    name: str
    run: dict[str, Any]

    @property
    def rows(self) -> Rows:
        """The rows it has seen."""
        return Rows.from_json(self.run["rows"])

    @property
    def process(self) -> tuple[int, int]:
        """(rank, processes) of who made it."""
        rank, world = self.run.get("process", (0, 1))
        return rank, world

    @property
    def holds(self) -> tuple[str, ...]:
        """Names of parts that went into it."""
        return tuple(self.run.get("holds", ()))


class Parts:
    """The parts of one run as one of its processes sees them.

    Attributes:
        folder: the run's; None for one that keeps nothing.
        rank: of this process.
        world: how many processes there are.
        seen: the rows in all parts that were there when the run began.
        own: the parts that this process goes on from.
        aligned: whether each process goes on from the one part that it made.
        pure: whether the rows in `own` are just those in all parts that this process reads again.
    """

    def __init__(
        self,
        folder: Path | None,
        found: Sequence[Part] = (),
        rank: int = 0,
        world: int = 1,
        token: str = "",
    ) -> None:
        self.folder = folder
        self.rank, self.world = rank, world
        self.name = ROOT if rank == 0 else f"{token}-{rank}"
        self.seen = Rows()
        for part in found:
            self.seen = self.seen.joined(part.rows)
        self.aligned = sorted(p.process for p in found) == sorted(
            (r, world) for r in {p.process[0] for p in found}
        )
        self.own = [
            part
            for place, part in enumerate(found)
            if (part.process[0] if self.aligned else place % world) == rank
        ]
        self.pure = world == 1 or (self.aligned and all(p.run.get("pure", True) for p in found))

    @property
    def home(self) -> Path | None:
        """Where this process saves what it has."""
        return None if self.folder is None else place(self.folder, self.name)

    def record(self) -> dict[str, Any]:
        """What the record of a part holds beside that of a run."""
        names = [name for part in self.own for name in (part.name, *part.holds) if name != ROOT]
        return {"process": [self.rank, self.world], "holds": names, "pure": self.pure}

    def superseded(self) -> None:
        """Remove the parts that went into one that is saved by now."""
        for part in self.own:
            if self.folder is not None and part.name not in (ROOT, self.name):
                shutil.rmtree(place(self.folder, part.name), ignore_errors=True)

    def finished(self) -> None:
        """Remove the parts of a run whose results are saved."""
        if self.folder is not None and self.rank == 0:
            shutil.rmtree(self.folder / storage.PARTS, ignore_errors=True)
        elif self.home is not None:  # on a disk of its own, maybe
            shutil.rmtree(self.home, ignore_errors=True)


def place(folder: Path, name: str) -> Path:
    """The folder of a part."""
    return folder if name == ROOT else folder / storage.PARTS / name


def token() -> str:
    """A name for parts that no earlier parts have."""
    return secrets.token_hex(4)


def find(folder: Path) -> list[Part]:
    """The parts of an unfinished run, the run's own folder first; those they replace are removed.

    The caller holds the folder's lock.

    Raises:
        StateError: for one that is damaged.
    """
    found = []
    if (folder / storage.RUN).is_file():
        run = storage.load_run(folder)
        if not run.get("complete"):
            found.append(_part(ROOT, run))
    hidden = folder / storage.PARTS
    for one in sorted(hidden.iterdir()) if hidden.is_dir() else ():
        if (one / storage.RUN).is_file():
            found.append(_part(one.name, storage.load_run(one)))
        else:  # killed before it had saved anything
            shutil.rmtree(one, ignore_errors=True)
    gone = {name for part in found for name in part.holds}
    for part in found:
        if part.name in gone:
            shutil.rmtree(place(folder, part.name), ignore_errors=True)
    return [part for part in found if part.name not in gone]


def read(folder: Path, names: Sequence[str]) -> list[Part]:
    """The parts of these names, as another process has found them.

    Raises:
        StateError: where this process does not see one of them.
    """
    try:
        return [_part(name, storage.load_run(place(folder, name))) for name in names]
    except StateError as error:
        raise StateError(
            f"this process does not see what the first one sees in {str(folder)!r} ({error}); to "
            "go on with an interrupted run give a folder that all processes share"
        ) from error


def _part(name: str, run: dict[str, Any]) -> Part:
    types = {"process": list[int], "holds": list[str], "pure": bool}
    guards.require_types(run, types, storage.RUN)
    if len(run.get("process", (0, 1))) != 2 or any(Path(n).name != n for n in run.get("holds", ())):
        raise StateError(f"{storage.RUN} misstates the process it is of")
    return Part(name, run)
