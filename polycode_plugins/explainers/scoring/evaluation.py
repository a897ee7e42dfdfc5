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
from polycode_plugins.explainers.scoring.floors import (
    FLOORS,
    check_floors,
    floors_of,
    judged_floors,
)
from polycode_plugins.explainers.scoring.judging import (
    NoSimulator,
    SimulatingJudge,
    cases_of,
    judged_scores,
)
from polycode_plugins.explainers.scoring.scores import (
    NOT_SIMULATED,
    Scores,
    scaled,
    scores_of,
    with_judgements,
)

_APART = 1_000_003  # between the seeds of one unit's explanations: no run's seed is another's draw


@dataclass(frozen=True, eq=False)
class Scoring:
    """How explanations are scored.

    Attributes:
        simulator: what simulates; the explainer's own by default.
        judge: also ask for detection and fuzzing.
        simulate: simulate activations, and so have correlations; without it, units are judged alone
            (detection and fuzzing), which takes far fewer tokens.
        explanations: how often each unit is explained; its scores are the means over them, and
            their spread is the explainer's noise.
        calibrate: "none", "linear" or "percentile", fitted on the calibration split; needs a
            protocol that has one.
        floors: see `floors.FLOORS`; "shuffled" and "empty" cost simulations.

    Raises:
        DataError: for an unknown floor, neither simulations nor judgements, or no explanation.
    """

    simulator: Simulator | None = None
    judge: bool = True
    simulate: bool = True
    explanations: int = 1
    calibrate: Method = "none"
    floors: Sequence[str] = FLOORS

    def __post_init__(self) -> None:
        check_floors(self.floors)
        if not (self.simulate or self.judge):
            raise DataError("units are scored by simulations or by a judge; leave one of them on")
        if not self.simulate and self.calibrate != "none":
            raise DataError("a calibration is of simulations; leave it out, or simulate")
        if self.explanations < 1:
            raise DataError(f"explanations is {self.explanations}; give 1 or more for each unit")

    def simulator_of(self, explainer: Explainer) -> Simulator:
        """What simulates; nothing where the explainer's judge alone is asked."""
        if not self.simulate and explainer.judge() is not None:
            return NoSimulator()
        return self.simulator or explainer.simulator()

    @classmethod
    def among(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `options` that are fields of this."""
        return {f.name: options[f.name] for f in fields(cls) if f.name in options}


@dataclass(frozen=True, eq=False)
class Draw:
    """One of several explanations of a unit, and its scores."""

    explanation: Explanation
    scores: Scores


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One unit, explained and scored.

    Attributes:
        records: of the unit.
        explanation: of it; a failed one has no scores. Of several the first that did not fail.
        simulations: of the scoring records, in the order of `records.score.all()`, uncalibrated;
            empty where the explanation failed.
        scores: against the scoring records; of several explanations the means of those that have
            one.
        floors: scores of the floors and of the ceiling, by name.
        calibration: that was applied before scoring.
        cost: of all answers together, floors left out.
        draws: every explanation with its scores, where there are several.
    """

    records: UnitRecords
    explanation: Explanation
    simulations: tuple[Simulation, ...]
    scores: Scores
    floors: dict[str, Scores]
    calibration: Calibration
    cost: Cost
    draws: tuple[Draw, ...] = ()


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
    first = _evaluated(units, explainer, scoring, seed)
    drawn = [first]
    while len(drawn) < scoring.explanations:
        # Units are shown the same texts, and judged by the same cases; the explainer draws anew.
        again = replace(scoring, floors=())
        made = _evaluated(units, explainer, again, seed, draw=len(drawn))
        if all(_same(a, b) for a, b in zip(first, made, strict=True)):
            break  # it draws nothing: there is no noise
        drawn.append(made)
    return first if len(drawn) == 1 else [_together(of) for of in zip(*drawn, strict=True)]


def _same(one: Evaluation, other: Evaluation) -> bool:
    a, b = one.explanation, other.explanation
    return (a.state, a.text, a.data) == (b.state, b.text, b.data)


def _together(drawn: Sequence[Evaluation]) -> Evaluation:
    """A unit by all of its explanations: means of scores, costs added up."""
    shown = next((e for e in drawn if e.explanation.state == "ok"), drawn[0])
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name in shown.scores.values:
        found = [v for e in drawn if (v := e.scores.values[name]) is not None]
        values[name] = float(np.mean(found)) if found else None
        if not found:
            reasons[name] = shown.scores.reasons.get(name, "")
    of = shown.scores
    return replace(
        shown,
        scores=Scores(values, reasons, of.n_records, of.n_failed, of.n_unjudged),
        floors=drawn[0].floors,
        cost=sum((e.cost for e in drawn), Cost()),
        draws=tuple(Draw(e.explanation, e.scores) for e in drawn),
    )


def _evaluated(
    units: Sequence[UnitRecords],
    explainer: Explainer,
    scoring: Scoring,
    seed: int,
    draw: int = 0,
) -> list[Evaluation]:
    """Every unit by one explanation of each."""
    calibrate, simulator = scoring.calibrate, scoring.simulator_of(explainer)
    if calibrate != "none" and any(not u.calibration.all() for u in units):
        raise DataError(
            f"the protocol {units[0].protocol!r} keeps no records for a calibration; use "
            "calibrate='none' or protocol='openai'"
        )
    explanations = explainer.explain_many(units, seed=seed + _APART * draw)
    if len(explanations) != len(units):
        raise PluginError(
            f"the explainer {explainer.name!r} gave {len(explanations)} explanations of "
            f"{len(units)} units"
        )
    pairs = {i: (units[i], e) for i, e in enumerate(explanations) if e.state == "ok"}
    simulated = _simulated(simulator, pairs, lambda unit: unit.score) if scoring.simulate else None
    rehearsed = (
        _simulated(simulator, pairs, lambda unit: unit.calibration) if calibrate != "none" else {}
    )
    asked = explainer.judge() or SimulatingJudge(simulator)
    judged = _judged(asked, pairs, seed) if scoring.judge else {}
    beside = (
        floors_of(units, explanations, simulator, scoring.floors, seed=seed)
        if scoring.simulate
        else judged_floors(units, explanations, asked, scoring.floors, seed=seed)
    )
    return [
        _evaluation(
            unit,
            explanations[i],
            None if simulated is None else simulated.get(i, []),
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
            found |= judged_scores(task.task, truth, answers)
            failed += sum(v.answer is None for v in answers)
            cost = sum((v.cost for v in answers), cost)
        made[i] = found, failed, cost
    return made


def _evaluation(
    unit: UnitRecords,
    explanation: Explanation,
    simulations: Sequence[Simulation] | None,
    fitted: Calibration | str,
    judged: _Judged | None,
    floors: dict[str, Scores],
) -> Evaluation:
    n, cost = len(unit.score.all()), explanation.cost
    if explanation.state != "ok":
        scores = Scores.undefined(f"no explanation: {explanation.reason}", n)
    elif isinstance(fitted, str):
        scores = Scores.undefined(f"no calibration: {fitted}", n)
    elif simulations is None:
        scores = Scores.undefined(NOT_SIMULATED, n)
    else:
        scores = scores_of(unit, simulations, fitted)
    cost = sum((s.cost for s in simulations or ()), cost)
    if judged is not None:
        found, failed, spent = judged
        scores, cost = with_judgements(scores, found, failed), cost + spent
    used = fitted if isinstance(fitted, Calibration) else Calibration("none")
    return Evaluation(unit, explanation, tuple(simulations or ()), scores, floors, used, cost)
