"""`token-lookup`: the explanation is a list of tokens, the simulation looks each token up.

The floor that a story about a unit has to beat, and an explainer that needs no network: it says as
much of a unit as the token alone does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from polycode_plugins.explainers.base import (
    LEVELS,
    Explainer,
    Explanation,
    Floats,
    Simulation,
    SimulationTask,
    Simulator,
    UnitRecords,
)

SILENT = "the unit is at or below zero on every explaining text"
_NAMED = 10  # tokens that the text names


class TokenLookupSimulator(Simulator):
    """Expects of each token its mean level on the explaining texts, 0 of tokens not seen there.

    A token that was not seen falls back on its like without case and surrounding white space.
    """

    name: ClassVar[str] = "token-lookup"

    def simulate_many(self, tasks: Sequence[SimulationTask]) -> list[list[Simulation]]:
        """One look-up per token."""
        made = []
        for task in tasks:
            table = _Table(task.explanation.data)
            made.append([Simulation(table.read(tokens)) for tokens in task.texts])
        return made


class TokenLookupExplainer(Explainer):
    """Lists the tokens on which a unit is high, with the mean level (0-10) at each.

    The table holds every token of the explaining records; the text names the highest ten.
    """

    name: ClassVar[str] = "token-lookup"

    def explain_many(self, units: Sequence[UnitRecords], *, seed: int = 0) -> list[Explanation]:
        """One table per unit; nothing is drawn."""
        return [self._explain(unit) for unit in units]

    def simulator(self) -> Simulator:
        """Looks tokens up in the table."""
        return TokenLookupSimulator()

    def _explain(self, unit: UnitRecords) -> Explanation:
        if not unit.maximum > 0:
            return Explanation.failed(unit.unit, self.name, SILENT)
        levels: dict[str, list[int]] = defaultdict(list)
        for record in unit.explain.all():
            for token, level in zip(record.tokens, unit.levels(record).tolist(), strict=True):
                levels[token].append(level)
        table = {token: float(np.mean(found)) for token, found in sorted(levels.items())}
        highest = sorted((t for t in table if table[t] >= 1), key=lambda t: (-table[t], t))
        named = ", ".join(f"{token!r} {table[token]:.1f}" for token in highest[:_NAMED])
        return Explanation(
            unit.unit,
            self.name,
            f"tokens, with their mean level of {LEVELS}: {named}",
            {"levels": table},
        )


def folded(token: str) -> str:
    """A token without case and surrounding white space."""
    return token.strip().casefold()


class _Table:
    """The levels of one explanation."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._levels: Mapping[str, float] = data.get("levels", {})
        alike: dict[str, list[float]] = defaultdict(list)
        for token, level in self._levels.items():
            alike[folded(token)].append(level)
        self._alike = {token: float(np.mean(levels)) for token, levels in alike.items()}

    def read(self, tokens: Sequence[str]) -> Floats:
        """float64 [tokens]."""
        exact, alike = self._levels, self._alike
        found = [exact[t] if t in exact else alike.get(folded(t), 0.0) for t in tokens]
        return np.array(found, dtype=np.float64)
