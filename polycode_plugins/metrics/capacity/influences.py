"""What each sample adds to the errors of the redundancy, to first order.

Bits at a noise v are sum_i log2(1 + lambda_i / v) / 2; see `spectrum.influences` for how a function
of the eigenvalues moves with the weight of a sample.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.metrics.capacity.code_entropy import NATS
from polycode_plugins.metrics.capacity.result import CapacityResult


def redundancy_gain(result: CapacityResult) -> NDArray[np.float64]:
    """[rank] derivatives of the redundancy [bits] by the logs of the eigenvalues.

    A step that was taken from the total variance goes with it, and the flat code's bits stay.
    """
    values = result.eigenvalues[result.eigenvalues > 0]
    noise = result.step**2 / 12
    shares, read = values / values.sum(), values / (values + noise)
    if result.step_from == "relative_step":
        pull = read.sum()
    else:
        pull = result.width * values.sum() / (values.sum() + result.width * noise)
    return np.asarray((pull * shares - read) / 2 / NATS)
