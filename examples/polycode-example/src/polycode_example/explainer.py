"""An explainer: says what a unit responds to, and a simulator that reads what it says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from polycode_plugins.explainers import (
    Explainer,
    Explanation,
    Simulation,
    SimulationTask,
    Simulator,
    UnitRecords,
)


class OneTokenExplainer(Explainer):
    """Names the one token on which a unit is highest, on average."""

    name = "one-token"

    def explain_many(self, units: Sequence[UnitRecords], *, seed: int = 0) -> list[Explanation]:
        """One explanation for each unit, in order; what cannot be explained says why."""
        return [self._explain(unit) for unit in units]

    def _explain(self, unit: UnitRecords) -> Explanation:
        # Only `unit.explain` may be looked at: the other records are what it is scored on.
        levels: dict[str, list[int]] = defaultdict(list)
        for record in unit.explain.all():
            for token, level in zip(record.tokens, unit.levels(record).tolist(), strict=True):
                levels[token].append(level)
        mean = {token: float(np.mean(found)) for token, found in levels.items()}
        token = max(sorted(mean), key=mean.__getitem__, default="")
        if not mean.get(token):
            return Explanation.failed(unit.unit, self.name, "the unit is silent on every text")
        text = f"the token {token!r}, at {mean[token]:.1f} of 10"
        return Explanation(unit.unit, self.name, text, {"token": token, "level": mean[token]})

    def simulator(self) -> Simulator:
        """The simulator that goes with these explanations."""
        return OneTokenSimulator()


class OneTokenSimulator(Simulator):
    """Expects the level of the explanation at its token, and 0 everywhere else."""

    name = "one-token"

    def simulate_many(self, tasks: Sequence[SimulationTask]) -> list[list[Simulation]]:
        """For each task one simulation for each text: a number from 0 to 10 for each token."""
        return [[self._simulate(task, text) for text in task.texts] for task in tasks]

    def _simulate(self, task: SimulationTask, text: Sequence[str]) -> Simulation:
        said = task.explanation.data
        if "token" not in said:
            return Simulation.failed("the explanation is not by one-token")
        here = [said["level"] if token == said["token"] else 0.0 for token in text]
        return Simulation(np.array(here, dtype=np.float64))
