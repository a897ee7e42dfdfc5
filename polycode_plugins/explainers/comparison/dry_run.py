"""What a comparison would cost, counted by running all of it but the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from polycode_plugins.explainers.base import (
    Cost,
    Explainer,
    Explanation,
    Judge,
    JudgeTask,
    Simulation,
    SimulationTask,
    Simulator,
    UnitRecords,
    Verdict,
)

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
        self._simulator, self._judge = explainer.estimators()
        self.cost = Cost()

    def explain_many(self, units: Sequence[UnitRecords], *, seed: int = 0) -> list[Explanation]:
        """Explanations that are known, and others of the usual length that say nothing."""
        self.cost += self._explainer.estimate(units, seed=seed)
        # Each its own: two units with one text are two requests, as they will be.
        return [
            known
            or Explanation(
                unit.unit, self.name, f"{unit.site} {unit.unit} {unit.sign} ".ljust(_USUAL, "x")
            )
            for unit, known in zip(units, self._explainer.known(units, seed=seed), strict=True)
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
        """As the explainer's own."""
        return self._explainer.dollars(cost)


class _DrySimulator(Simulator):
    name: ClassVar[str] = "dry-run"

    def __init__(self, run: DryRun, simulator: Simulator) -> None:
        self._run, self._simulator = run, simulator

    def simulate_many(self, tasks: Sequence[SimulationTask]) -> list[list[Simulation]]:
        self._run.cost += self._simulator.estimate(tasks)
        return [[Simulation.failed(REASON) for _ in task.texts] for task in tasks]


class _DryJudge(Judge):
    name: ClassVar[str] = "dry-run"

    def __init__(self, run: DryRun, judge: Judge) -> None:
        self._run, self._judge = run, judge

    def judge_many(self, tasks: Sequence[JudgeTask]) -> list[list[Verdict]]:
        self._run.cost += self._judge.estimate(tasks)
        return [[Verdict(None, REASON) for _ in task.texts] for task in tasks]
