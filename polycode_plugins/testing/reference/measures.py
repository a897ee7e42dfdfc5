"""What this package answers: one function for each quantity of the reference cases.

Each takes the arrays and the settings of a case and gives a number or a list of them. A table of
one's own with the same keys puts any other package to the same questions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from polycode_plugins import information, theory
from polycode_plugins.errors import PolycodeError
from polycode_plugins.metrics import Spectrum
from polycode_plugins.testing.reference.catalogue import Case, Verdict, judge
from polycode_plugins.testing.reference.generators import Arrays

Measure: TypeAlias = Callable[[Arrays, Mapping[str, Any]], Any]


def mutual_information(arrays: Arrays, settings: Mapping[str, Any]) -> float:
    """[nats]; the estimators that need no training, so that all cases take seconds."""
    return information.estimate(arrays["x"], arrays["y"], estimators=("gaussian", "ksg")).nats


def exponent(arrays: Arrays, settings: Mapping[str, Any]) -> float:
    """Of eigenvalue = rank^-exponent."""
    return float(Spectrum().measure(arrays["rows"]).exponent)


def participation_ratio(arrays: Arrays, settings: Mapping[str, Any]) -> float:
    """Of the population, from its rows."""
    return float(Spectrum().measure(arrays["rows"]).participation_ratio)


def effective_rank(arrays: Arrays, settings: Mapping[str, Any]) -> float | None:
    """Of the population, from its rows; None where the samples are too few to tell."""
    rank: float | None = Spectrum().measure(arrays["rows"]).effective_rank
    return rank


def expected_action(arrays: Arrays, settings: Mapping[str, Any]) -> float:
    """Mean action over random projections to `dimensions`."""
    return theory.expected_action(arrays["path"], settings["dimensions"])


def dropout_capacity(arrays: Arrays, settings: Mapping[str, Any]) -> float:
    """[bits] of a unit with `symbols` values, one of them 0, at the dropout `rate`."""
    return float(theory.dropout_capacity(math.log2(settings["symbols"]), settings["rate"]))


def gaussian_capacity(arrays: Arrays, settings: Mapping[str, Any]) -> float:
    """[bits] of parallel channels with these `noise` variances under a total `power`."""
    return theory.gaussian_capacity(arrays["noise"], settings["power"]).bits


def feature_allocation(arrays: Arrays, settings: Mapping[str, Any]) -> Any:
    """Capacities [features] that the toy model's optimum gives out."""
    return theory.optimal_allocation(
        arrays["importance"], settings["kurtosis"], settings["dimensions"]
    )


def feature_capacity(arrays: Arrays, settings: Mapping[str, Any]) -> Any:
    """Capacity [features] of each row of an embedding [features, dimensions]."""
    return theory.feature_capacity(arrays["embedding"])


#: This package's answers, by quantity.
MEASURES: dict[str, Measure] = {
    f.__name__: f
    for f in (
        mutual_information,
        exponent,
        participation_ratio,
        effective_rank,
        expected_action,
        dropout_capacity,
        gaussian_capacity,
        feature_allocation,
        feature_capacity,
    )
}


def answer(case: Case, measures: Mapping[str, Measure] | None = None) -> Verdict:
    """What `measures` say to a case, held against its truth; by default this package's own.

    A quantity that `measures` lack, None, and a refusal of this package are verdicts with a reason.
    """
    measure = (MEASURES if measures is None else measures).get(case.quantity)
    if measure is None:
        return Verdict(case, None, f"{case.quantity!r} is not measured")
    try:
        value = measure(case.arrays(), case.settings)
    except PolycodeError as error:
        return Verdict(case, None, f"refused: {error}")
    return judge({case.name: value if value is None else np.asarray(value).tolist()}, [case])[0]


def run(asked: Sequence[Case], measures: Mapping[str, Measure] | None = None) -> list[Verdict]:
    """`answer` for each of the cases."""
    return [answer(case, measures) for case in asked]
