"""How trials ended, counted; what went wrong is printed at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from children import BROKEN, ENDED, REFUSED, End
from subjects import Work

from polycode_plugins.errors import StateError


class Tally(Counter):  # type: ignore[type-arg]
    """How the trials of one kind ended; what went wrong is printed at once."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def note(self, what: str, said: str = "") -> None:
        self[what] += 1
        if what in ("lost", "different", BROKEN):
            print(f"{self.name}: {what}: {said}", flush=True)

    @property
    def bad(self) -> int:
        return self["lost"] + self["different"] + self[BROKEN]

    def line(self) -> str:
        fields = ("trials", "kills", "equal", REFUSED, "lost", "different", BROKEN)
        return f"| {self.name} | " + " | ".join(str(self[f]) for f in fields) + " |"


def check(tally: Tally, folder: Path, whole: Work) -> None:
    try:
        whole(folder)
    except StateError as error:
        tally.note("lost", str(error))


def conclude(
    tally: Tally, end: End, folder: Path, result: Callable[[Path], str], right: str
) -> None:
    """What came of a run that was left to end."""
    if end.how == REFUSED and "holds a" in end.said:  # it had finished before the kill
        end = End(ENDED)
    if end.how != ENDED:
        # What is refused where nothing is wrong any more is a fault of the run, or of the trial.
        tally.note("different" if end.how == REFUSED else end.how, end.said)
        return
    found = result(folder)
    tally.note("equal" if found == right else "different", f"{found} for {right}")
