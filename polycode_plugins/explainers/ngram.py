"""`ngram`: token patterns as an explanation, in the spirit of Neuron2Graph (Foote et al. 2023).

A trie of contexts read backwards: the token itself, then the one before it, and so on. A longer
context is kept only where it changes what is expected. Neuron2Graph prunes and extends its contexts
with further runs of the model; here the explaining records are all there is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.base import (
    LEVELS,
    Explainer,
    Explanation,
    Simulation,
    SimulationTask,
    Simulator,
    UnitRecords,
)
from polycode_plugins.explainers.lookup import SILENT

_NAMED = 8  # patterns that the text names
_CHANGE = 1.0  # levels by which a longer context must move the expectation to be kept
_WEIGHT = 0.5  # observations that the shorter context counts for in the mean of a longer one

Pattern = tuple[str, ...]  # tokens in the order of the text, the one that is read last


class NgramSimulator(Simulator):
    """Expects at each token the level of the longest pattern that ends there, 0 without one."""

    name: ClassVar[str] = "ngram"

    def simulate_many(self, tasks: Sequence[SimulationTask]) -> list[list[Simulation]]:
        """One walk through the patterns per token."""
        made = []
        for task in tasks:
            table = {tuple(p): float(v) for p, v in task.explanation.data.get("patterns", ())}
            longest = max(map(len, table), default=0)
            made.append([Simulation(_walk(table, longest, tokens)) for tokens in task.texts])
        return made


class NgramExplainer(Explainer):
    """Lists token patterns and the level (0-10) at the last token of each.

    Args:
        length: tokens in the longest pattern, at least 1 (which is a look-up of tokens).

    Raises:
        DataError: for a length below 1.
    """

    name: ClassVar[str] = "ngram"

    def __init__(self, length: int = 3) -> None:
        if length < 1:
            raise DataError(f"a pattern has at least one token, and length is {length}")
        self.length = length

    def explain_many(self, units: Sequence[UnitRecords], *, seed: int = 0) -> list[Explanation]:
        """The patterns of each unit; nothing is drawn."""
        return [self._explain(unit) for unit in units]

    def simulator(self) -> Simulator:
        """Reads the patterns."""
        return NgramSimulator()

    def describe(self) -> dict[str, Any]:
        """Its name and the length of its patterns."""
        return {"explainer": self.name, "length": self.length}

    def _explain(self, unit: UnitRecords) -> Explanation:
        if not unit.maximum > 0:
            return Explanation.failed(unit.unit, self.name, SILENT)
        levels = _pruned(self._levels(unit))
        highest = sorted((p for p in levels if levels[p] >= 1), key=lambda p: (-levels[p], p))
        named = ", ".join(f"{''.join(p)!r} {levels[p]:.1f}" for p in highest[:_NAMED])
        return Explanation(
            unit.unit,
            self.name,
            f"patterns, with the level of {LEVELS} at their last token: {named}",
            {"patterns": [[list(p), level] for p, level in sorted(levels.items())]},
        )

    def _levels(self, unit: UnitRecords) -> dict[Pattern, float]:
        """The mean level at the end of every pattern, drawn towards that of the shorter one."""
        found: dict[Pattern, list[int]] = defaultdict(list)
        for record in unit.explain.all():
            for at, level in enumerate(unit.levels(record).tolist()):
                for n in range(1, min(self.length, at + 1) + 1):
                    found[record.tokens[at + 1 - n : at + 1]].append(level)
        levels: dict[Pattern, float] = {}
        for pattern in sorted(found, key=len):
            total, n = float(sum(found[pattern])), len(found[pattern])
            shorter = levels.get(pattern[1:])
            if shorter is not None:
                total, weight = total + _WEIGHT * shorter, n + _WEIGHT
            else:
                weight = float(n)
            levels[pattern] = total / weight
        return levels


def _pruned(levels: Mapping[Pattern, float]) -> dict[Pattern, float]:
    """Without the patterns that say no more than the longest kept one they end with."""
    kept: dict[Pattern, float] = {}
    for pattern in sorted(levels, key=lambda p: (len(p), p)):
        ends = (kept[pattern[i:]] for i in range(1, len(pattern)) if pattern[i:] in kept)
        expected = next(ends, None)
        if expected is None or abs(levels[pattern] - expected) >= _CHANGE:
            kept[pattern] = levels[pattern]
    return kept


def _walk(
    table: Mapping[Pattern, float], longest: int, tokens: Sequence[str]
) -> np.ndarray[Any, Any]:
    expected = np.zeros(len(tokens))
    for at in range(len(tokens)):
        for n in range(min(longest, at + 1), 0, -1):
            level = table.get(tuple(tokens[at + 1 - n : at + 1]))
            if level is not None:
                expected[at] = level
                break
    return expected
