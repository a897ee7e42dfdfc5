"""What a comparison would cost, counted by running all of it but the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from polycode_plugins.explainers.base import (
    Explainer,
    Explanation,
    Judge,
    JudgeTask,
    PaidExplainer,
    PaidJudge,
    PaidSimulator,
    Simulation,
    SimulationTask,
    Simulator,
    UnitRecords,
    Verdict,
)
from polycode_plugins.explainers.costs import FREE, Cost

REASON = "nothing was asked: this is a dry run"
_USUAL = 240  # characters of an explanation of the usual length: 60 tokens


class DryRun(Explainer):
    """Stands in for an explainer, its simulator and its judge; adds up what they would take.

    Attributes:
        cost: at most, so far.
    """

    name: ClassVar[str] = "dry-run"

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer
        self._paid = explainer if isinstance(explainer, PaidExplainer) else None
        self._simulator, self._judge = (
            (explainer.simulator(), explainer.judge())
            if self._paid is None
            else self._paid.estimators()
        )
        self.cost = FREE

    def explain_many(self, units: Sequence[UnitRecords], *, seed: int = 0) -> list[Explanation]:
        """Explanations that are known, and others of the usual length that say nothing."""
        answers: Sequence[Explanation | None] = [None for _ in units]
        if self._paid is not None:
            self.cost += self._paid.estimate(units, seed=seed)
            answers = self._paid.known(units, seed=seed)
        # Each its own: two units with one text are two requests, as they will be.
        return [
            known
            or Explanation(
                unit.unit,
                self.name,
                f"{unit.site} {unit.unit} {unit.sign} {seed} ".ljust(_USUAL, "x"),
            )
            for unit, known in zip(units, answers, strict=True)
        ]

    def simulator(self) -> Simulator:
        """Counts what the explainer's own would take."""
        return _DrySimulator(self, self._simulator)

    def judge(self) -> Judge | None:
        """Counts what the explainer's own would take; none where its simulator judges."""
        return None if self._judge is None else _DryJudge(self, self._judge)

    def describe(self) -> dict[str, Any]:
        """As the explainer's own."""
        return self._explainer.describe()

    def dollars(self, cost: Cost) -> float | None:
        """As the explainer's own; None for one that is free."""
        return None if self._paid is None else self._paid.dollars(cost)


class _DrySimulator(Simulator):
    name: ClassVar[str] = "dry-run"

    def __init__(self, run: DryRun, simulator: Simulator) -> None:
        self._run, self._simulator = run, simulator

    def simulate_many(self, tasks: Sequence[SimulationTask]) -> list[list[Simulation]]:
        if isinstance(self._simulator, PaidSimulator):
            self._run.cost += self._simulator.estimate(tasks)
        return [[Simulation.failed(REASON) for _ in task.texts] for task in tasks]


class _DryJudge(Judge):
    name: ClassVar[str] = "dry-run"

    def __init__(self, run: DryRun, judge: Judge) -> None:
        self._run, self._judge = run, judge

    def judge_many(self, tasks: Sequence[JudgeTask]) -> list[list[Verdict]]:
        if isinstance(self._judge, PaidJudge):
            self._run.cost += self._judge.estimate(tasks)
        return [[Verdict(None, REASON) for _ in task.texts] for task in tasks]
