"""A comparison as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polycode_plugins.explainers.scoring.scores import NOT_SIMULATED, SCORES
from polycode_plugins.pages.escaping import printable

if TYPE_CHECKING:
    import pandas as pd

    from polycode_plugins.explainers.comparison.outcome import ComparedUnit, Comparison


def frame_of(comparison: Comparison) -> pd.DataFrame:
    """One row per unit, see `Comparison.to_dataframe`."""
    import pandas as pd

    frame = pd.DataFrame([row_of(unit) for unit in comparison])
    numbers = [c for c in frame.columns if c in SCORES or c.startswith("floor.")]
    return frame.astype(dict.fromkeys([*numbers, "kurtosis"], "float64"))


def row_of(unit: ComparedUnit) -> dict[str, Any]:
    """A unit as one row of scalars."""
    made = unit.evaluation
    main = "detection" if made.scores.reasons.get("correlation") == NOT_SIMULATED else "correlation"
    return {
        "site": unit.site,
        "depth": unit.depth,
        "kind": unit.kind,
        "unit": printable(unit.name),
        "sign": made.records.sign,
        "weights": unit.weights,
        "state": made.explanation.state,
        "explanation": printable(made.explanation.text),
        **made.scores.values,
        **{f"floor.{name}": floor.values[main] for name, floor in made.floors.items()},
        "reason": unit.why(main),
        "explanations": max(1, len(made.draws)),
        "warning": made.calibration.warning,
        "kurtosis": unit.shape.kurtosis,
        "sparsity": unit.shape.sparsity,
        "scoring_records": made.scores.n_records,
        "failed_records": made.scores.n_failed,
        "unjudged": made.scores.n_unjudged,
        "requests": made.cost.requests,
        "prompt_tokens": made.cost.prompt_tokens,
        "completion_tokens": made.cost.completion_tokens,
    }
