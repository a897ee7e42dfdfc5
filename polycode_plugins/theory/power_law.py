"""What a power-law spectrum costs in entropy and in action.

Eigenvalues are lambda_i = i^-exponent, exponent >= 0, i = 1..width. (The paper writes i^alpha; its
alpha is -exponent.)
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from polycode_plugins.errors import DataError
from polycode_plugins.theory._arguments import choice, count, number


def power_law_entropy(
    width: int,
    bits: float,
    exponent: float,
    mode: Literal["corrected", "as_published"] = "corrected",
) -> float:
    """Upper bound [bits] on the entropy of `width` (m) neurons of `bits` (n) precision.

    The first component fills its n bits; one of variance i^-exponent has i^(-exponent/2) of its
    range and so loses (exponent/2) log2(i) bits.

    - "corrected": m n - (exponent/2) log2(m!). A component narrower than the precision carries 0
      bits, not a negative number: once (exponent/2) log2(m) > n the components beyond that rank are
      left out of the sum, which keeps it an upper bound.
    - "as_published": m n - exponent m log2(m/e): the variance is taken for a standard deviation
      (twice the loss), and Stirling's formula for the factorial. May be negative, or above m n.

    Source: Marshall & Kirchner 2024, supplement 2.4, Theorem 4.
    """
    m = count(width, "width")
    n = number(bits, "bits", 0)
    decay = number(exponent, "exponent", 0)
    if choice(mode, "mode", ("corrected", "as_published")) == "as_published":
        return m * n - decay * m * math.log2(m / math.e)
    if decay / 2 * math.log2(m) > n:
        m = math.floor(2 ** (2 * n / decay))
    return m * n - decay / 2 * math.lgamma(m + 1) / math.log(2)


def power_law_action(
    width: int,
    exponent: float,
    dimensions: int = 3,
    mode: Literal["corrected", "as_published"] = "corrected",
) -> float:
    """Expected action of random projections of activations with a power-law spectrum.

    In units of the largest eigenvalue. With k = `dimensions` and m = `width`:

    - "corrected": (k / 2m) sum_{i<=m} i^-exponent, the mean of `expected_action(kind="static")`.
    - "as_published": zeta(exponent) / 2, which drops k/m and sums to infinity. It exists only for
      exponent > 1; `DataError` otherwise.

    Source: Marshall & Kirchner 2024, supplement 2.5.
    """
    m = count(width, "width")
    k = count(dimensions, "dimensions")
    decay = number(exponent, "exponent", 0)
    if choice(mode, "mode", ("corrected", "as_published")) == "corrected":
        return float(k / (2 * m) * (np.arange(1, m + 1, dtype=np.float64) ** -decay).sum())
    if decay <= 1:
        raise DataError(
            f"The published action zeta(exponent)/2 diverges for exponent <= 1, here {decay:g}; "
            "use mode='corrected', the finite sum."
        )
    from scipy.special import zeta

    return float(zeta(decay)) / 2
