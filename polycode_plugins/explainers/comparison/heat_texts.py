"""Texts with activations as heat: runs of tokens with a level, visible whatever they are."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polycode_plugins.explainers.base import LEVELS, Floats, Simulation, UnitRecords
from polycode_plugins.explainers.scoring.scores import scaled

_SIGNS = {"\n": "↵", "\t": "⇥", "\r": "\\r"}
_HIDDEN = {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}


@dataclass(frozen=True)
class Run:
    """Neighbouring tokens of one level: -10 to 10, and 0 where nothing is coloured."""

    text: str
    level: int


@dataclass(frozen=True)
class HeatText:
    """One text twice: with the true activations and with the simulated ones.

    Attributes:
        kind: "top", "random", "quantile" or "negative".
        true, simulated: as runs; no simulated ones where the simulation failed.
        reason: why there is no simulation.
    """

    kind: str
    true: Sequence[Run]
    simulated: Sequence[Run]
    reason: str = ""


def visible(token: str) -> str:
    """A token with everything in sight: control, direction and half characters as escapes."""
    return "".join(
        _SIGNS.get(c) or (_escaped(c) if unicodedata.category(c) in _HIDDEN else c) for c in token
    )


def heat_texts(
    unit: UnitRecords, simulations: Sequence[Simulation], most: int = 2
) -> list[HeatText]:
    """The first scoring texts of each kind, at most `most` of a kind."""
    if not unit.maximum > 0:
        return []
    made, at = [], 0
    for kind, records in (
        ("top", unit.score.top),
        ("random", unit.score.random),
        ("quantile", unit.score.quantile),
        ("negative", unit.score.negative),
    ):
        for place, record in enumerate(records):
            simulation = simulations[at] if at < len(simulations) else None
            at += 1
            if place >= most:
                continue
            expected = simulation.expected if simulation is not None else None
            made.append(
                HeatText(
                    kind,
                    runs(record.tokens, scaled(record, unit.maximum)),
                    [] if expected is None else runs(record.tokens, expected),
                    "no simulation" if simulation is None else simulation.reason,
                )
            )
    return made


def runs(tokens: Sequence[str], values: Floats) -> list[Run]:
    """Tokens joined where their levels (rounded towards 0, cut at 10) are the same 0."""
    levels = np.clip(np.trunc(values), -LEVELS, LEVELS).astype(int).tolist()
    made: list[Run] = []
    for token, level in zip(tokens, levels, strict=True):
        text = visible(token)
        if made and level == 0 == made[-1].level:
            made[-1] = Run(made[-1].text + text, 0)
        else:
            made.append(Run(text, level))
    return made


def _escaped(character: str) -> str:
    code = ord(character)
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )
