"""Entropy of sparse features and the dimensions they need (Marshall & Kirchner 2024, Lemma 2)."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np

from polycode_plugins.theory._arguments import (
    Floats,
    Many,
    broadcast,
    choice,
    count,
    number,
    scalar_or_array,
    within,
)


def sparse_entropy(
    features: int,
    sparsity: float,
    element_bits: float,
    mode: Literal["corrected", "as_published"] = "corrected",
) -> float:
    """Entropy of a sparse input [bits]: n [h(S) + (1 - S) H_elem].

    Each of `features` independent elements is 0 with probability `sparsity` (S) and otherwise has
    an entropy of `element_bits` (H_elem); h is the binary entropy. Exact if the elements are never
    0 of themselves.

    `mode="as_published"` is the last line of the proof, which has a minus before (1 - S) H_elem
    (the statement of the lemma has the right sign); it can be negative.
    Source: Marshall & Kirchner 2024, supplement 2.1, Lemma 2.
    """
    n = count(features, "features")
    zero = number(sparsity, "sparsity", 0, 1)
    element = number(element_bits, "element_bits", 0)
    sign = -1.0 if choice(mode, "mode", ("corrected", "as_published")) == "as_published" else 1.0
    return float(n * (_binary_entropy(np.asarray(zero)) + sign * (1 - zero) * element))


@overload
def dimensions_per_feature(sparsity: float, element_bits: float) -> float: ...
@overload
def dimensions_per_feature(sparsity: Many, element_bits: float | Many) -> Floats: ...
@overload
def dimensions_per_feature(sparsity: float, element_bits: Many) -> Floats: ...
def dimensions_per_feature(sparsity: Any, element_bits: Any) -> Any:
    """Hidden dimensions that an optimal code spends on one feature: D* = (1 - S) + h(S) / H_elem.

    S is the `sparsity` (the probability that the feature is 0), H_elem = `element_bits` > 0 [bits]
    the entropy of one active feature and of one hidden dimension. D* is 0 for a feature that never
    occurs, 1 for one that always does, and above 1 where saying *whether* a feature is active costs
    more than it saves. Numbers give a float, arrays broadcast.
    Source: Marshall & Kirchner 2024, figure 1c and supplement 2.1.
    """
    zero, element = broadcast(
        sparsity=within(sparsity, "sparsity", 0, 1),
        element_bits=within(element_bits, "element_bits", 0, open_low=True),
    )
    return scalar_or_array(np.asarray((1 - zero) + _binary_entropy(zero) / element))


def _binary_entropy(p: Floats) -> Floats:
    """h(p) [bits], with h(0) = h(1) = 0."""
    from scipy.special import xlog1py, xlogy

    return np.asarray(-(xlogy(p, p) + xlog1py(1 - p, -p)) / np.log(2))
