"""Detection and fuzzing: cases for a judge that answers yes or no, and its balanced accuracy.

Detection asks of a text whether the unit fires in it. Fuzzing shows every top text twice, once with
the tokens marked at which the unit fires and once with as many others. Neither needs a simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from polycode_plugins.explainers.base import (
    FIRES,
    LEVELS,
    Explanation,
    Judge,
    JudgeTask,
    Simulation,
    SimulationTask,
    Simulator,
    UnitRecords,
    Verdict,
)
from polycode_plugins.explainers.scoring.formulas import balanced_accuracy, ranking_score


@dataclass(frozen=True)
class Cases:
    """What a judge is asked about one unit, and the right answers in the same order."""

    tasks: tuple[JudgeTask, ...]
    truth: tuple[tuple[bool, ...], ...]


def cases_of(unit: UnitRecords, explanation: Explanation, seed: int) -> Cases:
    """A detection and a fuzzing task about the scoring records of one unit.

    Where the unit fires in all scoring texts or in none, as in protocols of top texts alone, no
    detection can be defined, and its task has no texts.
    """
    records = unit.score.all()
    levels = [unit.levels(r) for r in records]
    fires_in = tuple(bool((found >= FIRES).any()) for found in levels)
    if len(set(fires_in)) < 2:
        fires_in = ()
    shown = tuple(r.tokens for r in records) if fires_in else ()
    detection = JudgeTask(explanation, "detection", shown)
    rng = np.random.default_rng([seed, 2])
    texts, marked, truth = [], [], []
    for record, found in zip(records, levels, strict=True):
        fires, silent = np.flatnonzero(found >= FIRES), np.flatnonzero(found < FIRES)
        n = min(len(fires), len(silent))
        if not n:
            continue  # it fires nowhere, or everywhere: nothing to tell apart
        for where, right in ((fires, True), (silent, False)):
            texts.append(record.tokens)
            marked.append(tuple(sorted(rng.choice(where, n, replace=False).tolist())))
            truth.append(right)
    fuzzing = JudgeTask(explanation, "fuzzing", tuple(texts), tuple(marked))
    return Cases((detection, fuzzing), (fires_in, tuple(truth)))


def judged_scores(
    task: str, truth: Sequence[bool], verdicts: Sequence[Verdict]
) -> dict[str, tuple[float | None, str]]:
    """The scores that verdicts on one task give, each with why it is undefined where it is."""
    value, reason = verdict_score(truth, verdicts)
    ranked = ranking_score(truth, [v.probability for v in verdicts])
    unknown = reason or "the judge gives no probability of yes"
    return {task: (value, reason), f"{task}_auc": (ranked, "" if ranked is not None else unknown)}


def verdict_score(truth: Sequence[bool], verdicts: Sequence[Verdict]) -> tuple[float | None, str]:
    """Balanced accuracy, and why it is undefined where it is."""
    value = balanced_accuracy(truth, [v.answer for v in verdicts])
    if value is not None:
        return value, ""
    failed = next((v.reason for v in verdicts if v.answer is None), "")
    return None, failed or "the texts are all of one kind"


class NoSimulator(Simulator):
    """Stands where a judge alone is asked, so that no simulator need be found."""

    name: ClassVar[str] = "none"

    def simulate_many(self, tasks: Sequence[SimulationTask]) -> list[list[Simulation]]:
        """Nothing: every simulation has failed."""
        reason = "nothing is simulated: units are judged alone"
        return [[Simulation.failed(reason) for _ in task.texts] for task in tasks]


class SimulatingJudge(Judge):
    """Answers by what a simulator expects: the unit fires where that reaches level 5 of 10.

    As the probability of yes it gives the highest level, of 10.
    """

    name: ClassVar[str] = "simulating"

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator

    def judge_many(self, tasks: Sequence[JudgeTask]) -> list[list[Verdict]]:
        """Simulates each text and reads the highest level in it, or among its marked tokens."""
        simulated = self.simulator.simulate_many(
            [SimulationTask(task.explanation, task.texts) for task in tasks]
        )
        verdicts: list[list[Verdict]] = []
        for task, found in zip(tasks, simulated, strict=True):
            answers = []
            for i, simulation in enumerate(found):
                if simulation.expected is None:
                    answers.append(Verdict(None, simulation.reason, simulation.cost))
                    continue
                at = simulation.expected
                if task.task == "fuzzing":
                    at = at[list(task.marked[i])]
                highest = float(at.max()) if len(at) else 0.0
                share = min(1.0, max(0.0, highest / LEVELS))
                answers.append(Verdict(highest >= FIRES, "", simulation.cost, share))
            verdicts.append(answers)
        return verdicts
