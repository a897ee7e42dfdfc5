"""What was measured over the steps of a training run, in memory and as a file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polycode_plugins.errors import StateError
from polycode_plugins.files import guards, storage
from polycode_plugins.files.paths import given

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
HISTORY = "history.jsonl"
#: Points of steps to which training went back, where it was resumed from a checkpoint before them.
SUPERSEDED = "superseded.jsonl"

Number = tuple[float, float | None, float | None]


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        step: optimiser steps before it.
        seconds: that it took.
        numbers: {site: {"label.field": (value, low, high)}}, with the ends of the 95% interval, or
            None where there is none. "cka.to_first" is CKA to the first measurement.
        problems: {site: why it has no result}; under "" what all sites lack.
    """

    step: int
    seconds: float
    numbers: Mapping[str, Mapping[str, Number]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    def flat(self, prefix: str = "polycode") -> dict[str, float]:
        """For a logger: "prefix/site/label.field", with `_low` and `_high` for the interval."""
        found: dict[str, float] = {}
        for site, numbers in self.numbers.items():
            for name, ends in numbers.items():
                for end, value in zip(("", "_low", "_high"), ends, strict=True):
                    if value is not None:
                        found[f"{prefix}/{site}/{name}{end}"] = value
        return found

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Point:
        """What `asdict` of a point gave, read from JSON.

        Raises:
            StateError: for anything else.
        """
        types = {
            "step": int,
            "seconds": float,
            "numbers": dict[str, dict[str, list[float | None]]],
            "problems": dict[str, str],
        }
        if not isinstance(value, Mapping) or value.keys() != types.keys():
            raise StateError("the history holds a line that is no measurement")
        guards.require_types(value, types, "the history")
        numbers = {
            site: {name: _number(ends) for name, ends in held.items()}
            for site, held in value["numbers"].items()
        }
        return cls(value["step"], value["seconds"], numbers, dict(value["problems"]))


class History:
    """The measurements of a training run.

    Attributes:
        record: what they are of: model, sites, metrics, rows of the evaluation batch.
        points: in the order of their steps.
    """

    def __init__(self, record: Mapping[str, Any], points: Sequence[Point] = ()) -> None:
        self.record = dict(record)
        self.points = list(points)

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def __repr__(self) -> str:
        steps = f", steps {self.points[0].step} to {self.points[-1].step}" if self.points else ""
        return f"History({len(self.points)} measurements{steps})"

    @property
    def sites(self) -> list[str]:
        """Names of the sites, in depth order."""
        return list(self.record.get("sites", ()))

    def curve(self, site: str, name: str) -> tuple[list[int], list[Number]]:
        """The steps at which "label.field" of a site is known, and its (value, low, high)."""
        known = [(p.step, p.numbers[site][name]) for p in self if name in p.numbers.get(site, {})]
        return [step for step, _ in known], [number for _, number in known]

    def quantities(self) -> list[str]:
        """Names "label.field" of all that was measured."""
        names = (name for p in self for held in p.numbers.values() for name in held)
        return list(dict.fromkeys(names))

    def to_dataframe(self) -> pd.DataFrame:
        """One row per number: step, site, quantity, value, low, high."""
        import pandas as pd

        rows = [
            (p.step, site, name, *(math.nan if end is None else end for end in ends))
            for p in self
            for site, held in p.numbers.items()
            for name, ends in held.items()
        ]
        return pd.DataFrame(rows, columns=["step", "site", "quantity", "value", "low", "high"])

    def report(self, path: str | Path) -> Path:
        """Write the curves over steps as one self-contained HTML file.

        Raises:
            PluginError: when the report extra is not installed.
            StateError: when the file cannot be written.
        """
        from polycode_plugins.report import write_training

        return write_training(self, path)

    @classmethod
    def load(cls, folder: str | Path) -> History:
        """What a monitor with `out=folder` has measured so far; the run may be under way.

        Raises:
            StateError: for a folder without a history, a damaged one, or one of a newer format.
        """
        path = given(folder) / HISTORY
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, ValueError) as error:
            raise StateError(f"{str(path)!r} cannot be read: {error}") from error
        # A line that a kill cut off has no end.
        values = [_line(path, line) for line in lines[:-1]]
        if not values or not isinstance(values[0], dict):
            raise StateError(f"{str(path)!r} is damaged: it does not begin with a record")
        guards.format_of(path, values[0], FORMAT)
        types = {"sites": list[str], "model": dict, "rows": dict, "metrics": list}
        guards.require_types(values[0], types, path.name)
        if not types.keys() <= values[0].keys():
            raise StateError(f"{str(path)!r} is damaged: its record is not whole")
        return cls(values[0], [Point.from_dict(value) for value in values[1:]])

    # -- written as it grows ---------------------------------------------------------------------

    def begin_file(self, folder: Path) -> None:
        """Write all points, whole or not at all."""
        lines = [json.dumps({"format": FORMAT, **self.record}), *map(_text, self.points)]
        folder.mkdir(parents=True, exist_ok=True)
        storage.write_text(folder / HISTORY, "".join(f"{line}\n" for line in lines))

    def append(self, point: Point, folder: Path | None) -> None:
        """Add a point, in the file as well where there is one."""
        self.points.append(point)
        if folder is not None:
            _append(folder / HISTORY, [point])

    def go_back(self, step: int, folder: Path | None) -> list[Point]:
        """Leave out the points after `step`, from where training goes on; returns them.

        They stay in the file `superseded.jsonl`.
        """
        gone = [point for point in self.points if point.step > step]
        if gone:
            self.points = [point for point in self.points if point.step <= step]
            if folder is not None:
                _append(folder / SUPERSEDED, gone)
                self.begin_file(folder)
        return gone


def _number(ends: Sequence[float | None]) -> Number:
    if len(ends) != 3 or ends[0] is None:
        raise StateError(f"the history misstates a number: {list(ends)} is no [value, low, high]")
    return ends[0], ends[1], ends[2]


def _text(point: Point) -> str:
    return json.dumps(asdict(point))


def _append(path: Path, points: Sequence[Point]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(f"{_text(point)}\n" for point in points))


def _line(path: Path, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise StateError(f"{str(path)!r} is damaged: {error}") from error
