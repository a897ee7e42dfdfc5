"""The report of a comparison: the picture, the differences, and every unit with its texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from polycode_plugins.explainers.base import LEVELS
from polycode_plugins.explainers.comparison.heat_texts import HeatText, heat_texts, visible
from polycode_plugins.explainers.comparison.picture import picture
from polycode_plugins.explainers.comparison.plot import NAMES
from polycode_plugins.explainers.comparison.spending import spending_text
from polycode_plugins.explainers.scoring.scores import NOT_SIMULATED, SCORES
from polycode_plugins.pages.pages import Copyable, Facts, Part, Prose, Section, Warnings
from polycode_plugins.pages.tables import UNDEFINED, Cell, Column, shared
from polycode_plugins.runs.description import (
    data_text,
    model_text,
    record_text,
    sites_text,
)

if TYPE_CHECKING:
    from polycode_plugins.explainers.comparison.outcome import ComparedUnit, Comparison
    from polycode_plugins.runs.analysis import Analysis

#: Units whose texts are shown; of more, every n-th. A page of thousands would open slowly.
MOST_UNITS = 240
EXPLANATION_CHARACTERS = 30  # of a line of an explanation on paper


@dataclass(frozen=True)
class UnitCard:
    """One row of the units: its kind and cells, the explanation, and the texts that unfold."""

    kind: str
    cells: Sequence[Cell]
    explanation: str
    failed: bool
    facts: Sequence[tuple[str, str]]
    texts: Sequence[HeatText]


@dataclass(frozen=True)
class UnitCards:
    """A sortable table of units, each with its heat maps."""

    template: ClassVar[str] = "explanations.html.j2"
    id: str
    caption: str
    columns: Sequence[tuple[str, bool]]
    rows: Sequence[UnitCard]
    levels: ClassVar[Sequence[int]] = range(1, LEVELS + 1)

    @property
    def kinds(self) -> list[str]:
        """Kinds of units, to choose from."""
        return list(dict.fromkeys(row.kind for row in self.rows))

    @property
    def shares(self) -> list[int]:
        """Percent of the paper's width that are each column's, the explanation's last."""
        columns = [
            Column(title, [row.cells[i] for row in self.rows], numeric, name=not numeric)
            for i, (title, numeric) in enumerate(self.columns)
        ]
        return shared([*(c.breadth for c in columns), EXPLANATION_CHARACTERS])


def sections_of(comparison: Comparison, analysis: Analysis | None = None) -> list[Section]:
    """What was compared, the answer, the units and the record; beside an analysis of the model."""
    comparison = _in_sight(comparison)
    prefix = "" if analysis is None else "compared-"
    name = "Record" if analysis is None else "Record of the comparison"
    return [
        Section("compared", "What was compared", _overview(comparison)),
        Section("picture", "Neuron or projection?", picture(comparison, analysis)),
        Section("units", "The units", _units(comparison)),
        Section(f"{prefix}record", name, _record(comparison.run, prefix)),
    ]


def _record(run: Mapping[str, Any], prefix: str) -> list[Part]:
    text = record_text(dict(run))
    parts: list[Part] = [Copyable(f"{prefix}run", "Versions, seed, data and options", text)]
    if run.get("command"):
        parts.insert(0, Copyable(f"{prefix}command", "Command", str(run["command"])))
    return parts


def _in_sight(comparison: Comparison) -> Comparison:
    """With nothing hidden in the names of units and sites."""

    def named(unit: ComparedUnit) -> ComparedUnit:
        records = unit.evaluation.records
        records = replace(records, unit=visible(records.unit), site=visible(records.site))
        return replace(unit, evaluation=replace(unit.evaluation, records=records))

    return replace(comparison, units=tuple(named(unit) for unit in comparison))


def _overview(comparison: Comparison) -> list[Part]:
    run = dict(comparison.run)
    protocol = run["protocol"]
    facts = [
        ("Model", model_text(run)),
        ("Texts", data_text(run)),
        ("Sites", f"{len(comparison.sites)}: {sites_text(comparison.sites)}"),
        ("Units", _counted(comparison)),
        *_drawn(comparison),
        ("Explainer", _words(run["explainer"])),
        ("Simulator", _words(run["simulator"])),
        ("Protocol", f"{protocol['name']}, signs {run['signs']}, calibration {run['calibration']}"),
        ("Seed", str(run["seed"])),
    ]
    if spending_text(run):
        facts.append(("Answers", spending_text(run)))
    parts: list[Part] = [
        Facts(facts),
        Prose(
            [
                "Each unit reads one number per token off a layer. An explainer sees some texts "
                "with these numbers and says what the unit responds to; a simulator predicts the "
                "numbers on other texts from what was said; the score is how well it does. No "
                "document is among both.",
                "A score means something beside its floors: the explanation of another unit "
                "(shuffled), none (empty), one level throughout (constant), the mean level of each "
                "token (token-lookup); and beside its ceiling, the true activations on the 0-10 "
                "scale that explainers see (oracle).",
            ]
        ),
    ]
    warnings = _warnings(comparison)
    return [*parts, Warnings(warnings)] if warnings else parts


def _warnings(comparison: Comparison) -> list[str]:
    total = len(comparison)
    said = [f"{visible(str(warning))}." for warning in comparison.run.get("warnings", ())]
    said += [
        f"{n} of {total} units have no explanation and no score: {reason}."
        for reason, n in comparison.failures.items()
    ]
    failed = sum(u.evaluation.scores.n_failed for u in comparison)
    if failed:
        records = sum(u.evaluation.scores.n_records for u in comparison)
        said.append(
            f"{failed} of {records} scoring texts could not be simulated; no score has them."
        )
    flipped = sum(bool(u.evaluation.calibration.warning) for u in comparison)
    if flipped:
        said.append(
            f"The calibration of {flipped} units has a negative slope, so the sign of their "
            "correlation is changed."
        )
    undefined = sum(
        u.score("correlation") is None
        and u.evaluation.explanation.state == "ok"
        and u.why("correlation") != NOT_SIMULATED
        for u in comparison
    )
    if undefined:
        said.append(
            f"The correlation of {undefined} explained units is undefined (a constant has none) "
            "and left out of every mean."
        )
    return said


def _units(comparison: Comparison) -> list[Part]:
    step = -(-len(comparison) // MOST_UNITS)
    shown = comparison.units[::step]
    floors = [
        floor
        for floor in dict.fromkeys(f for u in shown for f in u.evaluation.floors)
        if any(_floor(u, floor) is not None for u in shown)  # a column of "undefined" says nothing
    ]
    columns = [("unit", False), ("site", False), ("kind", False), ("correlation", True)]
    columns += [(floor, True) for floor in floors]
    cards = [_card(unit, floors, comparison) for unit in shown]
    which = "Every unit" if step == 1 else f"One unit in {step}"
    return [
        Prose(
            [
                "Open an explanation to see its texts: above each the true activations, below the "
                "simulated ones. Blue is high, red is below zero. (−) marks a unit that is read "
                "with its sign turned, because its highest explaining texts are there."
            ]
        ),
        UnitCards("cards", f"{which}: explanation, score, floors and ceiling", columns, cards),
        Facts([(name.replace("_", " "), meaning) for name, meaning in SCORES.items()]),
    ]


def _card(unit: ComparedUnit, floors: Sequence[str], comparison: Comparison) -> UnitCard:
    made = unit.evaluation
    kind = unit.kind if unit.weights == "trained" else f"{unit.kind}, random weights"
    sign = " (−)" if made.records.sign < 0 and not unit.name.endswith("(-)") else ""
    values = [unit.score("correlation")]
    values += [_floor(unit, floor) for floor in floors]
    cells = [Cell(f"{unit.name}{sign}", unit.name), Cell(unit.site, unit.site), Cell(kind, kind)]
    cells += [_number(value) for value in values]
    facts = [
        (name.replace("_", " "), _number(value).text) for name, value in made.scores.values.items()
    ]
    facts += [
        ("kurtosis", _number(unit.shape.kurtosis).text),
        ("sparsity", _number(unit.shape.sparsity).text),
    ]
    if made.calibration.warning:
        facts.append(("calibration", made.calibration.warning))
    failed = made.explanation.state != "ok"
    return UnitCard(
        kind,
        cells,
        visible(f"no explanation: {made.explanation.reason}" if failed else made.explanation.text),
        failed,
        facts,
        heat_texts(made.records, made.simulations),
    )


def _floor(unit: ComparedUnit, floor: str) -> float | None:
    found = unit.evaluation.floors.get(floor)
    return None if found is None else found.values["correlation"]


def _number(value: float | None) -> Cell:
    if value is None:
        return Cell(UNDEFINED)
    return Cell(f"{value:.3f}".replace("-", "−"), repr(float(value)))


def _counted(comparison: Comparison) -> str:
    counts: dict[str, int] = {}
    for unit in comparison:
        name = NAMES.get(unit.kind, unit.kind)
        label = name if unit.weights == "trained" else f"{name} with random weights"
        counts[label] = counts.get(label, 0) + 1
    return ", ".join(f"{n} {label}" for label, n in counts.items())


def _drawn(comparison: Comparison) -> list[tuple[str, str]]:
    """How the random projections were drawn."""
    for (_, kind, _), units in comparison.directions.items():
        if kind == "projection":
            return [("Projections", ", ".join(f"{k} {v}" for k, v in units.origin.items()))]
    return []


def _words(described: dict[str, object]) -> str:
    first, *rest = [
        f"{v}" if k in ("explainer", "simulator") else f"{k} {v}" for k, v in described.items()
    ]
    return f"{first} ({', '.join(rest)})" if rest else first
