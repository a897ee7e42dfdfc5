"""Scores of a simulation against the truth: pure functions of two arrays over the same tokens.

A score that is undefined is None, never a number: a constant has no correlation with anything, and
a unit that is silent has no deviation to explain. `why_undefined` says it in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polycode_plugins.errors import DataError

Floats = NDArray[np.float64]


def correlation_score(true: ArrayLike, simulated: ArrayLike) -> float | None:
    """Pearson's r over all tokens joined ("ev correlation", OpenAI 2023); in [-1, 1].

    Args:
        true: activations, one array or a list of arrays of several texts.
        simulated: expected activations of the same tokens, on any scale.

    Returns:
        None where either is constant.

    Raises:
        DataError: for arrays of different lengths, none at all, or NaN.
    """
    y, x = _joined(true, simulated)
    if _constant(y) or _constant(x):
        return None
    dy, dx = y - y.mean(), x - x.mean()
    # Scaled first, so that no square underflows or overflows.
    return float(np.corrcoef(dy / np.abs(dy).max(), dx / np.abs(dx).max())[0, 1])


def r_squared_score(true: ArrayLike, simulated: ArrayLike) -> float | None:
    """1 - mean (y - y')^2 / mean y^2 (uncentred; OpenAI 2023); at most 1, below 0 if worse than 0.

    Both must be on one scale. None where the truth is all zeros. Raises as `correlation_score`.
    """
    y, x = _joined(true, simulated)
    power = float(np.mean(y**2))
    return None if power == 0 else 1 - float(np.mean((y - x) ** 2)) / power


def absolute_deviation_score(true: ArrayLike, simulated: ArrayLike) -> float | None:
    """1 - mean |y - y'| / mean |y| (OpenAI 2023); at most 1, negative where worse than zero.

    Both must be on one scale. None where the truth is all zeros. Raises as `correlation_score`.
    """
    y, x = _joined(true, simulated)
    size = float(np.mean(np.abs(y)))
    return None if size == 0 else 1 - float(np.mean(np.abs(y - x))) / size


def auprc_score(fires: ArrayLike, simulated: ArrayLike) -> float | None:
    """Area under the precision-recall curve (average precision) of finding where the unit fires.

    Chance is the share of tokens that fire. Args: `fires`, bool, and `simulated`, any scale, over
    the same tokens. None where no token fires or all do.
    """
    y, x = _joined(fires, simulated)
    fires = y > 0
    if _constant(fires):
        return None
    from sklearn import config_context
    from sklearn.metrics import average_precision_score

    # Checked above: its own checks take a third of the time.
    with config_context(skip_parameter_validation=True, assume_finite=True):
        return float(average_precision_score(fires, x))


def balanced_accuracy(truth: Sequence[bool], answers: Sequence[bool | None]) -> float | None:
    """Mean of the shares of right answers among true and among false cases; chance is 0.5.

    Answers that failed (None) are left out. None where one kind of case is not left.
    """
    from sklearn.metrics import balanced_accuracy_score

    given = [(t, a) for t, a in zip(truth, answers, strict=True) if a is not None]
    if len({t for t, _ in given}) < 2:
        return None
    return float(balanced_accuracy_score(*zip(*given, strict=True)))


def ranking_score(truth: Sequence[bool], probabilities: Sequence[float | None]) -> float | None:
    """Area under the ROC curve: how often a true case has the higher probability; chance is 0.5.

    Cases without a probability are left out. None where one kind of case is not left.
    """
    from sklearn.metrics import roc_auc_score

    given = [(t, p) for t, p in zip(truth, probabilities, strict=True) if p is not None]
    if len({t for t, _ in given}) < 2:
        return None
    return float(roc_auc_score(*zip(*given, strict=True)))


def bounds_of(score: str) -> tuple[float, float]:
    """The least and the greatest that a score of this name can be."""
    if score.startswith("correlation"):
        return -1.0, 1.0
    return (-math.inf, 1.0) if score in ("r_squared", "absolute_deviation") else (0.0, 1.0)


def chance_of(score: str) -> float | None:
    """What a score of this name is where nothing is known; None where it depends on the unit."""
    if score.startswith("correlation"):
        return 0.0
    return 0.5 if score.startswith(("detection", "fuzzing")) else None


def why_undefined(true: ArrayLike, simulated: ArrayLike) -> str:
    """The reason for which a score of these is None."""
    y, _ = _joined(true, simulated)
    if not y.any():
        return "the true activations are all zero"
    if _constant(y):
        return "the true activations are constant"
    return "the simulated activations are constant"


def _joined(true: ArrayLike, simulated: ArrayLike) -> tuple[Floats, Floats]:
    y, x = _flat(true), _flat(simulated)
    if y.size != x.size:
        raise DataError(f"{y.size} true and {x.size} simulated activations; give one for each")
    if not y.size:
        raise DataError("there are no activations to score")
    if not (np.isfinite(y).all() and np.isfinite(x).all()):
        raise DataError("an activation is NaN or infinite; a failed simulation is no number")
    return y, x


def _flat(values: Any) -> Floats:
    if isinstance(values, list | tuple) and values and np.ndim(values[0]):
        return np.concatenate([np.asarray(v, dtype=np.float64).ravel() for v in values])
    return np.asarray(values, dtype=np.float64).ravel()


def _constant(values: NDArray[Any]) -> bool:
    return bool((values == values[0]).all())
