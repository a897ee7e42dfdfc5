"""Units without a score."""

from __future__ import annotations

import dataclasses

from polycode_plugins.explainers import Explanation
from polycode_plugins.explainers.scoring.scores import Scores


def unscored(comparison, which, reason):
    """The comparison in which the units at these places failed."""
    units = list(comparison.units)
    for i in which:
        made = units[i].evaluation
        failed = dataclasses.replace(
            made,
            explanation=Explanation.failed("u", "e", reason(i)),
            scores=Scores.undefined("no explanation", made.scores.n_records),
        )
        units[i] = dataclasses.replace(units[i], evaluation=failed)
    return dataclasses.replace(comparison, units=tuple(units))
