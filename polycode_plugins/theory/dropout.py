"""Capacity of a neuron under dropout (Marshall & Kirchner 2024, Theorem 3)."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, overload

import numpy as np

from polycode_plugins.theory._arguments import (
    Floats,
    Many,
    broadcast,
    choice,
    scalar_or_array,
    within,
)

Bound: TypeAlias = Literal["exact", "lower", "additive", "upper"]


@overload
def dropout_capacity(bits: float, rate: float, bound: Bound = ...) -> float: ...
@overload
def dropout_capacity(bits: Many, rate: float | Many, bound: Bound = ...) -> Floats: ...
@overload
def dropout_capacity(bits: float, rate: Many, bound: Bound = ...) -> Floats: ...
def dropout_capacity(bits: Any, rate: Any, bound: Bound = "exact") -> Any:
    """Capacity of one neuron under dropout [bits per use]; m independent neurons carry m times it.

    The neuron takes K = 2^bits values, one of which is 0; with probability `rate` (D) its value is
    replaced by 0, and the receiver cannot tell such a 0 from a sent one. K need not be whole
    (the formula is then its own continuation) and `bits` may be large. Numbers give a float,
    arrays broadcast.

    bound:
      - "exact": (1-D) log2(K-1) where (K-1) D^(1/(1-D)) >= 1, for then 0 is best never sent; else
        log2(1 + (K-1) (1-D) D^(D/(1-D))).
      - "upper": (1-D) C, the erasure channel (C = `bits`).
      - "lower": (1-eps) (1-D) C with eps = -log2(1 - 2^-C), as the theorem states it.
      - "additive": (1-D) (C - eps), as its proof derives it; for C >= 1 it is the tighter of the
        two. It is the exact capacity above the corner (K-1) D^(1/(1-D)) = 1.

    The two lower bounds are vacuous for C < 1, where their formulas turn negative: they are cut
    off at 0, which no capacity falls below.
    Source: Marshall & Kirchner 2024, supplement 2.3; exact form derived from the channel's
    Kuhn-Tucker conditions.
    """
    capacity, drop = broadcast(bits=within(bits, "bits", 0), rate=within(rate, "rate", 0, 1))
    choice(bound, "bound", ("exact", "lower", "additive", "upper"))
    keep = 1 - drop
    if bound == "upper":
        return scalar_or_array(keep * capacity)
    with np.errstate(divide="ignore", invalid="ignore"):  # the edges are put right below
        eps = -np.log2(-np.expm1(-capacity * np.log(2)))
        others = capacity - eps  # log2(K - 1), without forming 2^bits
        if bound == "lower":
            out = np.where(capacity > 0, (1 - eps) * keep * capacity, 0.0)
        elif bound == "additive":
            out = np.where(keep > 0, keep * others, 0.0)
        else:
            log_drop = np.log2(drop)
            cost = np.where(drop > 0, drop * log_drop / keep, 0.0)
            spoken = np.logaddexp2(0.0, others + np.log2(keep) + cost)
            out = np.where(others + log_drop / keep >= 0, keep * others, spoken)
            out = np.where(keep > 0, out, 0.0)
    return scalar_or_array(np.maximum(out, 0.0))
