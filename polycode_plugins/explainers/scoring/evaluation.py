"""From records to scores: explain, simulate, calibrate, score, judge, and the floors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from polycode_plugins.errors import DataError, PluginError
from polycode_plugins.explainers.base import (
    Explainer,
    Explanation,
    Judge,
    RecordSet,
    Simulation,
    SimulationTask,
    Simulator,
    UnitRecords,
)
from polycode_plugins.explainers.costs import Cost
from polycode_plugins.explainers.scoring import calibration
from polycode_plugins.explainers.scoring.calibration import Calibration, Method
from polycode_plugins.explainers.scoring.floors import FLOORS, check_floors, floors_of
from polycode_plugins.explainers.scoring.judging import SimulatingJudge, cases_of, verdict_score
from polycode_plugins.explainers.scoring.scores import Scores, scaled, scores_of, with_judgements


@dataclass(frozen=True, eq=False)
class Scoring:
    """How explanations are scored.

    Attributes:
        simulator: what simulates; the explainer's own by default.
        judge: also ask for detection and fuzzing.
        calibrate: "none", "linear" or "percentile", fitted on the calibration split; needs a
            protocol that has one.
        floors: see `floors.FLOORS`; "shuffled" and "empty" cost simulations.

    Raises:
        DataError: for an unknown floor.
    """

    simulator: Simulator | None = None
    judge: bool = True
    calibrate: Method = "none"
    floors: Sequence[str] = FLOORS

    def __post_init__(self) -> None:
        check_floors(self.floors)

    @classmethod
    def among(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `options` that are fields of this."""
        return {f.name: options[f.name] for f in fields(cls) if f.name in options}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One unit, explained and scored.

    Attributes:
        records: of the unit.
        explanation: of it; a failed one has no scores.
        simulations: of the scoring records, in the order of `records.score.all()`, uncalibrated;
            empty where the explanation failed.
        scores: against the scoring records.
        floors: scores of the floors and of the ceiling, by name.
        calibration: that was applied before scoring.
        cost: of all answers together, floors left out.
    """

    records: UnitRecords
    explanation: Explanation
    simulations: tuple[Simulation, ...]
    scores: Scores
    floors: dict[str, Scores]
    calibration: Calibration
    cost: Cost


def evaluate(
    units: Sequence[UnitRecords],
    explainer: Explainer,
    scoring: Scoring | None = None,
    *,
    seed: int = 0,
    **options: Any,
) -> list[Evaluation]:
    """Explain and score units of one site.

    Args:
        units: with their records; shuffled explanations are drawn from among them.
        explainer: what explains.
        scoring: how they are scored.
        seed: of everything that is drawn.
        options: fields of `Scoring` that differ from `scoring`.

    Raises:
        DataError: for a calibration that the protocol has no records for.
        PluginError: for an explainer or simulator that answers another number of units or tokens.
    """
    scoring = replace(scoring or Scoring(), **options)
    calibrate, simulator = scoring.calibrate, scoring.simulator or explainer.simulator()
    if calibrate != "none" and any(not u.calibration.all() for u in units):
        raise DataError(
            f"the protocol {units[0].protocol!r} keeps no records for a calibration; use "
            "calibrate='none' or protocol='openai'"
        )
    explanations = explainer.explain_many(units, seed=seed)
    if len(explanations) != len(units):
        raise PluginError(
            f"the explainer {explainer.name!r} gave {len(explanations)} explanations of "
            f"{len(units)} units"
        )
    pairs = {i: (units[i], e) for i, e in enumerate(explanations) if e.state == "ok"}
    simulated = _simulated(simulator, pairs, lambda unit: unit.score)
    rehearsed = (
        _simulated(simulator, pairs, lambda unit: unit.calibration) if calibrate != "none" else {}
    )
    asked = explainer.judge() or SimulatingJudge(simulator)
    judged = _judged(asked, pairs, seed) if scoring.judge else {}
    beside = floors_of(units, explanations, simulator, scoring.floors, seed=seed)
    return [
        _evaluation(
            unit,
            explanations[i],
            simulated.get(i, []),
            _fitted(unit, rehearsed.get(i, []), calibrate),
            judged.get(i),
            beside[i],
        )
        for i, unit in enumerate(units)
    ]


_Pairs = dict[int, tuple[UnitRecords, Explanation]]


def _simulated(
    simulator: Simulator, pairs: _Pairs, part: Callable[[UnitRecords], RecordSet]
) -> dict[int, list[Simulation]]:
    """The simulations of one split of every unit that has an explanation."""
    tasks = [
        SimulationTask(explanation, tuple(r.tokens for r in part(unit).all()))
        for unit, explanation in pairs.values()
    ]
    found = simulator.simulate_many(tasks)
    for task, simulations in zip(tasks, found, strict=True):
        lengths = [None if s.expected is None else len(s.expected) for s in simulations]
        if len(lengths) != len(task.texts) or any(
            n is not None and n != len(tokens)
            for n, tokens in zip(lengths, task.texts, strict=True)
        ):
            raise PluginError(
                f"the simulator {simulator.name!r} did not give one activation for each token"
            )
    return dict(zip(pairs, found, strict=True))


def _fitted(
    unit: UnitRecords, simulations: Sequence[Simulation], method: Method
) -> Calibration | str:
    """The calibration of a unit, or why there is none."""
    if method == "none":
        return Calibration("none")
    pairs = [
        (s.expected, scaled(r, unit.maximum))
        for r, s in zip(unit.calibration.all(), simulations, strict=bool(simulations))
        if s.expected is not None
    ]
    if not pairs:
        return "no simulation of a calibration record succeeded"
    x, y = (np.concatenate(part) for part in zip(*pairs, strict=True))
    try:
        return calibration.fit(method, x, y)
    except ValueError as error:
        return str(error)


_Judged = tuple[dict[str, tuple[float | None, str]], int, Cost]


def _judged(judge: Judge, pairs: _Pairs, seed: int) -> dict[int, _Judged]:
    """For each unit the (score, reason) of each task, the verdicts that failed, and the cost."""
    cases = {i: cases_of(unit, explanation, seed) for i, (unit, explanation) in pairs.items()}
    verdicts = iter(judge.judge_many([task for c in cases.values() for task in c.tasks]))
    made: dict[int, _Judged] = {}
    for i, case in cases.items():
        found: dict[str, tuple[float | None, str]] = {}
        failed, cost = 0, Cost()
        for task, truth in zip(case.tasks, case.truth, strict=True):
            answers = next(verdicts)
            found[task.task] = verdict_score(truth, answers)
            failed += sum(v.answer is None for v in answers)
            cost = sum((v.cost for v in answers), cost)
        made[i] = found, failed, cost
    return made


def _evaluation(
    unit: UnitRecords,
    explanation: Explanation,
    simulations: Sequence[Simulation],
    fitted: Calibration | str,
    judged: _Judged | None,
    floors: dict[str, Scores],
) -> Evaluation:
    n, cost = len(unit.score.all()), explanation.cost
    if explanation.state != "ok":
        scores = Scores.undefined(f"no explanation: {explanation.reason}", n)
    elif isinstance(fitted, str):
        scores = Scores.undefined(f"no calibration: {fitted}", n)
    else:
        scores = scores_of(unit, simulations, fitted)
    cost = sum((s.cost for s in simulations), cost)
    if judged is not None:
        found, failed, spent = judged
        scores, cost = with_judgements(scores, found, failed), cost + spent
    used = fitted if isinstance(fitted, Calibration) else Calibration("none")
    return Evaluation(unit, explanation, tuple(simulations), scores, floors, used, cost)
