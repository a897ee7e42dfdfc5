"""What a score has to be read against: floors that know nothing of the unit, and the ceiling.

- shuffled: another unit's explanation, simulated. Seeded, and never the unit's own, nor that of its
  other sign.
- empty: an explanation that says nothing, simulated: what the simulator expects anyway.
- constant: the same level at every token.
- token-lookup: the mean level of each token on the explaining texts.
- oracle: the truth itself, cut to whole levels 0-10 as explainers see it: a perfect simulation in
  whole levels. Expected levels are no whole numbers and may score a little higher.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polycode_plugins.errors import DataError, near
from polycode_plugins.explainers.base import (
    LEVELS,
    Explanation,
    Judge,
    Simulation,
    SimulationTask,
    Simulator,
    UnitRecords,
    direction_of,
)
from polycode_plugins.explainers.lookup import TokenLookupExplainer
from polycode_plugins.explainers.scoring.calibration import Calibration
from polycode_plugins.explainers.scoring.judging import (
    SimulatingJudge,
    cases_of,
    judged_scores,
)
from polycode_plugins.explainers.scoring.scores import (
    NOT_SIMULATED,
    Scores,
    scores_of,
    with_judgements,
)

FLOORS = ("shuffled", "empty", "constant", "token-lookup", "oracle")
#: Floors that ask the simulator again, which costs requests where it is a remote one.
SIMULATED = frozenset({"shuffled", "empty"})
_TRIES = 100  # orders that are drawn until no unit has its own


def check_floors(floors: Sequence[str]) -> tuple[str, ...]:
    """The floors asked for, in the usual order.

    Raises:
        DataError: for an unknown one.
    """
    for floor in floors:
        if floor not in FLOORS:
            raise DataError(
                f"no floor is called {floor!r}{near(floor, FLOORS)} (known: {', '.join(FLOORS)})"
            )
    return tuple(f for f in FLOORS if f in floors)


def floors_of(
    units: Sequence[UnitRecords],
    explanations: Sequence[Explanation],
    simulator: Simulator,
    floors: Sequence[str],
    *,
    seed: int = 0,
) -> list[dict[str, Scores]]:
    """For each unit the scores of each floor, none of them calibrated.

    Raises:
        DataError: for an unknown floor.
    """
    made: list[dict[str, Scores]] = [{} for _ in units]
    for floor in check_floors(floors):
        stand_ins = _stand_ins(floor, units, explanations, seed)
        asked = [i for i, e in enumerate(stand_ins) if e is not None and e.state == "ok"]
        by = TokenLookupExplainer().simulator() if floor == "token-lookup" else simulator
        simulated = dict(
            zip(
                asked, by.simulate_many([_task(units[i], stand_ins[i]) for i in asked]), strict=True
            )
            if floor in (*SIMULATED, "token-lookup")
            else ()
        )
        for i, unit in enumerate(units):
            n = len(unit.score.all())
            explanation = stand_ins[i]
            if floor == "constant":
                level = float(LEVELS) / 2
                simulations = [Simulation(np.full(len(r.tokens), level)) for r in unit.score.all()]
            elif floor == "oracle":
                simulations = [
                    Simulation(unit.levels(r).astype(np.float64)) for r in unit.score.all()
                ]
            elif i in simulated:
                simulations = simulated[i]
            else:
                reason = "there is no other unit's" if explanation is None else explanation.reason
                made[i][floor] = Scores.undefined(reason or "failed", n)
                continue
            made[i][floor] = scores_of(unit, simulations, Calibration("none"))
    return made


def judged_floors(
    units: Sequence[UnitRecords],
    explanations: Sequence[Explanation],
    judge: Judge,
    floors: Sequence[str],
    *,
    seed: int = 0,
) -> list[dict[str, Scores]]:
    """For each unit the floors of detection and fuzzing, where nothing is simulated.

    One level throughout (constant) tells nothing apart, 0.5, and the truth (oracle) everything, 1.

    Raises:
        DataError: for an unknown floor.
    """
    made: list[dict[str, Scores]] = [{} for _ in units]
    for floor in check_floors(floors):
        stand_ins = _stand_ins(floor, units, explanations, seed)
        looked_up = SimulatingJudge(TokenLookupExplainer().simulator())
        by = looked_up if floor == "token-lookup" else judge
        known = {"constant": 0.5, "oracle": 1.0}.get(floor)
        asked = [i for i, e in enumerate(stand_ins) if e is not None and e.state == "ok"]
        whose = range(len(units)) if known is not None else asked
        nothing = Explanation("", floor, "")
        cases = {i: cases_of(units[i], stand_ins[i] or nothing, seed) for i in whose}
        tasks = [task for case in cases.values() for task in case.tasks]
        verdicts = iter(by.judge_many(tasks) if known is None else ())
        for i, unit in enumerate(units):
            n = len(unit.score.all())
            scores = Scores.undefined(NOT_SIMULATED, n)
            found: dict[str, tuple[float | None, str]] = {}
            case = cases.get(i)
            for task, truth in zip(case.tasks, case.truth, strict=True) if case else ():
                if known is None:
                    found |= judged_scores(task.task, truth, next(verdicts))
                else:
                    one = len(set(truth)) < 2
                    value = (None, "the texts are all of one kind") if one else (known, "")
                    found |= {task.task: value, f"{task.task}_auc": value}
            if case is None:
                reason = (stand_ins[i] or nothing).reason or "there is no other unit's"
                scores = Scores.undefined(reason, n)
            made[i][floor] = with_judgements(scores, found, 0)
    return made


def others(
    n: int, usable: Sequence[int], seed: int, of: Sequence[str] | None = None
) -> list[int | None]:
    """For each of `n` units another one's index out of `usable`, seeded; None where there is none.

    Where a unit is the only usable one, it has no other. Over the usable units every explanation
    is used once.

    Args:
        n, usable, seed: see above.
        of: the direction that each unit reads; the other sign of one is not another unit.
    """
    of = of if of is not None else [str(i) for i in range(n)]
    rng = np.random.default_rng([seed, 3])
    found: list[int | None] = [None] * n
    for _ in range(_TRIES):
        order = rng.permutation(np.asarray(usable, dtype=np.int64)).tolist()
        turns = (order[turn:] + order[:turn] for turn in range(1, len(order)))
        turned = next((t for t in turns if _apart(order, t, of)), None)
        if turned is not None:
            for a, b in zip(order, turned, strict=True):
                found[a] = b
            break
    for i in range(n):
        if found[i] is None:
            strangers = [j for j in order if of[j] != of[i]]
            found[i] = strangers[i % len(strangers)] if strangers else None
    return found


def _apart(order: Sequence[int], turned: Sequence[int], of: Sequence[str]) -> bool:
    return all(of[a] != of[b] for a, b in zip(order, turned, strict=True))


def _stand_ins(
    floor: str, units: Sequence[UnitRecords], explanations: Sequence[Explanation], seed: int
) -> Sequence[Explanation | None]:
    if floor == "shuffled":
        usable = [i for i, e in enumerate(explanations) if e.state == "ok"]
        chosen = others(len(units), usable, seed, [direction_of(u) for u in units])
        return [None if j is None else explanations[j] for j in chosen]
    if floor == "empty":
        return [Explanation(u.unit, "empty", "") for u in units]
    if floor == "token-lookup":
        return TokenLookupExplainer().explain_many(units)
    return [None] * len(units)


def _task(unit: UnitRecords, explanation: Explanation | None) -> SimulationTask:
    assert explanation is not None
    return SimulationTask(explanation, tuple(r.tokens for r in unit.score.all()))
