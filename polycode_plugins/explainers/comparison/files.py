"""The files of a comparison: comparison.json, units.parquet, records.safetensors. No pickle.

comparison.json holds the checksums of the others, so a folder in which something is missing or
damaged is refused whole. As in a run's folder (`storage`), the others wait beside their names until
comparison.json knows them: any number of kills leaves the earlier comparison or the later one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polycode_plugins.errors import StateError
from polycode_plugins.explainers.base import Explanation, Simulation, UnitRecords
from polycode_plugins.explainers.comparison.spending import spending_text
from polycode_plugins.explainers.comparison.table import frame_of
from polycode_plugins.explainers.costs import Cost
from polycode_plugins.explainers.records.tensors import Packer, Unpacker
from polycode_plugins.explainers.records.unit_records import Shape
from polycode_plugins.explainers.scoring.calibration import Calibration
from polycode_plugins.explainers.scoring.evaluation import Draw, Evaluation
from polycode_plugins.explainers.scoring.scores import Scores
from polycode_plugins.explainers.units.autoencoder.features import Features
from polycode_plugins.explainers.units.base import Units
from polycode_plugins.files import guards, locks, storage
from polycode_plugins.files.provenance import check_record
from polycode_plugins.files.tensors import write as write_tensors

if TYPE_CHECKING:
    from polycode_plugins.explainers.comparison.outcome import ComparedUnit, Comparison

COMPARISON, UNITS, RECORDS = storage.COMPARISON, storage.UNITS, storage.RECORDS
LOCK = ".comparison.lock"  # of its own: an analysis may run into the same folder meanwhile
FORMAT = 1
# What the record of every comparison holds beside that of a run.
_RECORD = {
    "calibration": str,
    "explainer": dict,
    "protocol": dict,
    "seed": int,
    "signs": str | None,
    "simulator": dict,
}


def save(comparison: Comparison, folder: Path) -> Path:
    """See `Comparison.save`."""
    with locked(folder):
        return write(comparison, folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's comparison for one process; a second one is refused."""
    storage.prepare(folder)
    with locks.held(folder / LOCK, folder):
        yield


def write(comparison: Comparison, folder: Path) -> Path:
    """`save`, for a caller who holds the lock."""
    storage.prepare(folder)
    storage.settle(folder, folder / COMPARISON, (RECORDS, UNITS))
    packer = Packer()
    described = [_described(i, unit, packer) for i, unit in enumerate(comparison)]
    tensors = packer.tensors()
    groups = []
    for i, (key, units) in enumerate(comparison.directions.items()):
        tensors |= {f"directions/{i}": units.directions, f"offsets/{i}": units.offsets}
        if units.index is not None:
            tensors[f"index/{i}"] = units.index
        groups.append(
            {"key": key, "kind": units.kind, "names": units.names, "origin": dict(units.origin)}
        )
    frame = frame_of(comparison)
    waiting = {name: storage.following(folder / name) for name in (RECORDS, UNITS)}
    files = {
        RECORDS: storage.write_file(waiting[RECORDS], lambda path: write_tensors(path, tensors)),
        UNITS: storage.write_file(waiting[UNITS], lambda p: frame.to_parquet(p, index=False)),
    }
    content = {
        "format": FORMAT,
        "files": files,
        "run": dict(comparison.run),
        "vocabulary": packer.vocabulary(),
        "directions": groups,
        "units": described,
    }
    text = json.dumps(content, ensure_ascii=True)  # half characters stay what they are
    storage.write_text(folder / COMPARISON, text + "\n")
    storage.promote(folder, waiting)
    return folder


def refuse_finished(folder: Path) -> None:
    """Raise StateError when the folder holds a comparison, or something else that is in the way."""
    storage.prepare(folder)
    if (folder / COMPARISON).exists():
        report = (
            ""
            if (folder / storage.REPORT).is_file()
            else f"; its report was not written: 'polycode report {folder}' writes it"
        )
        raise StateError(
            f"{str(folder)!r} holds a comparison; read it with Comparison.load, replace it with "
            f"--fresh, or give another folder{report}"
        )


def load(folder: Path) -> Comparison:
    """See `Comparison.load`."""
    from safetensors.torch import load_file

    from polycode_plugins.explainers.comparison.outcome import Comparison

    path = folder / COMPARISON
    if not path.is_file():
        raise StateError(f"there is no comparison in {str(folder)!r} ({COMPARISON} is missing)")
    content = guards.read_json(path)
    guards.format_of(path, content, FORMAT)
    try:
        tensors = load_file(storage.checked(folder, RECORDS, content))
        unpacker = Unpacker(tensors, content["vocabulary"])
        units = tuple(_restored(i, fields, unpacker) for i, fields in enumerate(content["units"]))
        directions = {
            tuple(g["key"]): (Features if "autoencoder" in g["origin"] else Units)(
                g["kind"],
                tuple(g["names"]),
                tensors[f"directions/{i}"],
                tensors[f"offsets/{i}"],
                g["origin"],
                tensors.get(f"index/{i}"),
            )
            for i, g in enumerate(content["directions"])
        }
        _require_record(content["run"], path.name)
        for unit in units:
            guards.check_fields(unit)
            _require_scores(unit)
        return Comparison(units, content["run"], directions)
    except StateError as error:
        raise StateError(f"{str(folder)!r} is damaged: {error}") from error
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise StateError(f"{str(folder)!r} is damaged: {type(error).__name__}: {error}") from error


def _require_record(run: dict[str, Any], what: str) -> None:
    """Raise StateError unless the record says what every comparison's says."""
    check_record(run, what)
    guards.require_types(run, _RECORD, what)
    named = {"explainer": "explainer", "simulator": "simulator", "protocol": "name"}
    for part, name in named.items():
        if not isinstance(run.get(part, {}).get(name), str):
            raise StateError(f"{what} does not name the {part}")
    guards.require_types(run, {"warnings": list[str]}, what)
    spending_text(run)  # whatever it raises, the record is damaged
    missing = sorted(_RECORD.keys() - run.keys())
    if missing:
        raise StateError(f"{what} lacks {missing[0]!r}")


def _require_scores(unit: ComparedUnit) -> None:
    """Raise StateError unless the unit has the scores of a comparison: a table names them."""
    floors = unit.evaluation.floors
    found = (unit.evaluation.scores, *floors.values())
    names = [*floors, *(name for scores in found for name in scores.values)]
    if any("correlation" not in s.values for s in found) or not all(n.isascii() for n in names):
        raise StateError(f"the scores of {unit.name!r} are not those of a comparison")


def _described(number: int, unit: ComparedUnit, packer: Packer) -> dict[str, Any]:
    """A unit as JSON values; its records go to the packer."""
    made = unit.evaluation
    records, fitted = made.records, made.calibration
    packer.add(number, records, made.simulations)
    return {
        "unit": records.unit,
        "site": records.site,
        "depth": unit.depth,
        "kind": records.kind,
        "sign": records.sign,
        "protocol": records.protocol,
        "weights": unit.weights,
        "shape": dataclasses.asdict(unit.shape),
        "explanation": dataclasses.asdict(made.explanation),
        "simulations": [[s.state, s.reason, dataclasses.asdict(s.cost)] for s in made.simulations],
        "scores": dataclasses.asdict(made.scores),
        "floors": {name: dataclasses.asdict(f) for name, f in made.floors.items()},
        "calibration": {
            "method": fitted.method,
            "slope": fitted.slope,
            "intercept": fitted.intercept,
            "knots": None if fitted.knots is None else [k.tolist() for k in fitted.knots],
        },
        "cost": dataclasses.asdict(made.cost),
        "draws": [
            [dataclasses.asdict(d.explanation), dataclasses.asdict(d.scores)] for d in made.draws
        ],
    }


def _restored(number: int, fields: Mapping[str, Any], unpacker: Unpacker) -> ComparedUnit:
    """The unit that `_described` wrote."""
    from polycode_plugins.explainers.comparison.outcome import ComparedUnit

    records = UnitRecords(
        fields["unit"],
        fields["site"],
        fields["kind"],
        fields["sign"],
        fields["protocol"],
        *unpacker.sets(number, fields["unit"]),
    )
    simulations = tuple(
        Simulation(expected if state == "ok" else None, state, reason, Cost(**cost))
        for expected, (state, reason, cost) in zip(
            unpacker.expected(number), fields["simulations"], strict=bool(fields["simulations"])
        )
    )
    explanation = _explanation(fields["explanation"])
    saved = fields["calibration"]
    knots = None if saved["knots"] is None else tuple(np.array(k) for k in saved["knots"])
    evaluation = Evaluation(
        records,
        explanation,
        simulations,
        Scores(**fields["scores"]),
        {name: Scores(**floor) for name, floor in fields["floors"].items()},
        Calibration(**{**saved, "knots": knots}),
        Cost(**fields["cost"]),
        tuple(Draw(_explanation(e), Scores(**s)) for e, s in fields.get("draws", ())),
    )
    return ComparedUnit(fields["depth"], fields["weights"], evaluation, Shape(**fields["shape"]))


def _explanation(fields: Mapping[str, Any]) -> Explanation:
    return Explanation(**{**fields, "cost": Cost(**fields["cost"])})
