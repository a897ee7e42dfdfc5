"""Test whether a sample spectrum is that of one power law or of two.

The sample spectrum of an exact power law is bent where n is not far above the width. So the test is
made around the curve that `match` expects, in units in which the sampling noise is white.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polycode_plugins.metrics.spectrum.law.bins import Binned
from polycode_plugins.metrics.spectrum.law.levels import Array
from polycode_plugins.metrics.spectrum.law.matching import Matched

MIN_SIDE = 3  # bins on either side of a break
MIN_TESTED = 8  # bins below which no break is looked for
NULL_DRAWS = 1999


@dataclass(frozen=True)
class BreakTest:
    """The largest F statistic over all ranks at which two laws might meet.

    rank: first rank of the second law. statistic: F with 2 numerator degrees of freedom.
    p_value: share of single power laws, with this noise, that show as large a statistic anywhere.
    """

    rank: int
    statistic: float
    p_value: float


def find_break(data: Binned, single: Matched, width: int, seed: int) -> BreakTest | None:
    """Compare one power law with two that meet, or jump, at any edge of the bins.

    The statistic is relative to the scatter that two laws leave, so that noise that is stronger
    than Gaussian does not by itself look like a break. Its null distribution is drawn. None where
    there are too few bins.
    """
    count = len(data.sizes)
    freedom = single.freedom - 2
    if count < MIN_TESTED or freedom < 2:
        return None
    base = np.linalg.qr(single.whitened)[0]
    order = np.arange(1, width + 1)
    # Beyond the last bin the tail has an exponent of its own.
    logs = np.log(np.minimum(order, data.last if data.tail else width))
    edges = data.edges[MIN_SIDE : count - MIN_SIDE + 1]
    after = order >= edges[:, None]
    change = np.stack([after, after * (logs - np.log(edges)[:, None])], axis=2)
    columns = single.whitener @ (single.response @ change)
    columns -= base @ (base.T @ columns)
    pairs = np.linalg.qr(columns)[0]  # [candidates, rows, 2]
    flat = pairs.swapaxes(0, 1).reshape(len(base), -1)

    def statistics(white: Array) -> Array:
        """[draws, candidates] F of draws [draws, rows] of whitened residuals."""
        left = white - (white @ base) @ base.T
        total = np.sum(left**2, axis=1)[:, None]
        gained = np.sum((left @ flat).reshape(len(left), -1, 2) ** 2, axis=2)
        return np.asarray(gained / 2 / ((total - gained) / freedom))

    found = statistics((single.whitener @ single.residuals)[None])[0]
    draws = np.random.default_rng(seed).standard_normal((NULL_DRAWS, len(base)))
    null = statistics(draws).max(axis=1)
    best = int(found.argmax())
    exceed = int(np.sum(null >= found[best]))
    return BreakTest(int(edges[best]), float(found[best]), (1 + exceed) / (1 + NULL_DRAWS))
