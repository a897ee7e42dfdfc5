"""Mean and covariance of a matrix of activations."""

from __future__ import annotations

from polycode_plugins.activations import Activations
from polycode_plugins.metrics.accumulators import Covariance


def moments(values):
    """Of [tokens, features]."""
    made = Covariance()
    made.update(Activations(values[:, None], ("batch", "position", "feature")))
    return made
