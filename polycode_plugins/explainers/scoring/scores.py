"""All scores of one unit's simulations, each with its reason where it is undefined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from polycode_plugins.explainers.base import FIRES, LEVELS, Record, Simulation, UnitRecords
from polycode_plugins.explainers.scoring.calibration import Calibration
from polycode_plugins.explainers.scoring.formulas import (
    Floats,
    absolute_deviation_score,
    auprc_score,
    correlation_score,
    r_squared_score,
    why_undefined,
)

#: What each score is, in the order of tables. `correlation` is the published one.
SCORES = {
    "correlation": "Pearson's r over all scoring texts",
    "correlation_top": "r over the top texts alone",
    "correlation_random": "r over the random texts alone",
    "correlation_one_sided": "r with negative activations set to zero",
    "r_squared": "1 - mean squared error / mean square, uncentred",
    "absolute_deviation": "1 - mean absolute error / mean absolute activation",
    "auprc": "average precision of finding the tokens where the unit fires",
    "detection": "balanced accuracy of telling texts in which the unit fires",
    "fuzzing": "balanced accuracy of telling rightly marked tokens",
    "detection_auc": "area under the ROC curve of detection, by the judge's probability of yes",
    "fuzzing_auc": "area under the ROC curve of fuzzing, by the judge's probability of yes",
}


#: Those that a judge gives.
JUDGED = ("detection", "fuzzing", "detection_auc", "fuzzing_auc")
NOT_SIMULATED = "nothing was simulated: units were judged alone"


@dataclass(frozen=True)
class Scores:
    """The scores of one unit.

    Attributes:
        values: by name, see `SCORES`; None where undefined.
        reasons: why, for each that is None.
        n_records: scoring records.
        n_failed: those of them whose simulation failed; they are in no score.
        n_unjudged: cases that the judge gave no answer on.
    """

    values: Mapping[str, float | None]
    reasons: Mapping[str, str]
    n_records: int
    n_failed: int = 0
    n_unjudged: int = 0

    @classmethod
    def undefined(cls, reason: str, n_records: int, n_failed: int = 0) -> Scores:
        """No score at all."""
        return cls(dict.fromkeys(SCORES), dict.fromkeys(SCORES, reason), n_records, n_failed)


def scaled(record: Record, maximum: float) -> Floats:
    """A record's activations with the explaining maximum at 10: signed, neither cut nor rounded."""
    return record.activations.astype(np.float64) * (LEVELS / maximum)


def scores_of(
    unit: UnitRecords,
    simulations: Sequence[Simulation],
    calibration: Calibration,
) -> Scores:
    """Every score that a simulation of the scoring records gives.

    A record whose simulation failed is left out and counted. Where fewer than half are left, a
    score would be of a selection, so there is none.
    """
    records = unit.score.all()
    failed = [s.reason for s in simulations if s.expected is None]
    if not unit.maximum > 0:
        return Scores.undefined(
            "the unit is at or below zero on every explaining text", len(records)
        )
    if 2 * len(failed) > len(records):
        reason = f"the simulation failed on most texts: {failed[0]}"
        return Scores.undefined(reason, len(records), len(failed))
    pairs = [
        (scaled(r, unit.maximum), calibration(s.expected))
        for r, s in zip(records, simulations, strict=True)
        if s.expected is not None
    ]
    kinds = [
        which
        for which, group in (("top", unit.score.top), ("random", unit.score.random))
        for _ in group
    ]
    kinds += ["quantile"] * len(unit.score.quantile) + ["negative"] * len(unit.score.negative)
    kept = [k for k, s in zip(kinds, simulations, strict=True) if s.expected is not None]
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    y, x = (np.concatenate(part) for part in zip(*pairs, strict=True))
    values["correlation"] = _said(correlation_score(y, x), "correlation", y, x, reasons)
    for which in ("top", "random"):
        name = f"correlation_{which}"
        group = [pair for pair, kind in zip(pairs, kept, strict=True) if kind == which]
        if not group:
            values[name], reasons[name] = (
                None,
                (
                    f"the simulation failed on every one of the {which} texts"
                    if which in kinds
                    else f"the protocol scores no {which} texts"
                ),
            )
            continue
        gy, gx = (np.concatenate(part) for part in zip(*group, strict=True))
        values[name] = _said(correlation_score(gy, gx), name, gy, gx, reasons)
    rectified = np.maximum(y, 0)
    levels = [
        unit.levels(r) for r, s in zip(records, simulations, strict=True) if s.expected is not None
    ]
    fires = (np.concatenate(levels) >= FIRES).astype(np.float64)
    for name, score, truth in (
        ("correlation_one_sided", correlation_score, rectified),
        ("r_squared", r_squared_score, y),
        ("absolute_deviation", absolute_deviation_score, y),
        ("auprc", auprc_score, fires),
    ):
        values[name] = _said(score(truth, x), name, truth, x, reasons)
    for name in JUDGED:
        values[name], reasons[name] = None, "no judge was asked"
    return Scores(values, reasons, len(records), len(failed))


def with_judgements(
    scores: Scores, found: Mapping[str, tuple[float | None, str]], n_unjudged: int
) -> Scores:
    """With the judge's scores, given as (value, reason) by name."""
    values, reasons = dict(scores.values), dict(scores.reasons)
    for name, (value, reason) in found.items():
        values[name] = value
        reasons.pop(name, None)
        if value is None:
            reasons[name] = reason
    return Scores(values, reasons, scores.n_records, scores.n_failed, n_unjudged)


def _said(
    value: float | None, name: str, y: Floats, x: Floats, reasons: dict[str, str]
) -> float | None:
    if value is None:
        every = "the unit fires at every token" if y.any() else "the unit fires at no token"
        reasons[name] = every if name == "auprc" else why_undefined(y, x)
    return value
