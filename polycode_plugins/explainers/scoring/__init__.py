"""Scoring: how well an explanation predicts what a unit does, and what such a score is worth."""

from polycode_plugins.explainers.scoring.formulas import (
    absolute_deviation_score,
    correlation_score,
    r_squared_score,
)

__all__ = ["absolute_deviation_score", "correlation_score", "r_squared_score"]
