"""Mutual information of two sample arrays, in nats, by several estimators behind one call.

    estimate(x, y) -> MutualInformation: a recommended value, its interval, all estimates, warnings

Pure functions of arrays: no model, no hook. `channels` holds the noise models without which the
information through a deterministic layer is infinite.
"""

from __future__ import annotations

from polycode_plugins.information.channels import (
    AdditiveGaussian,
    AdditiveUniform,
    Channel,
    Dropout,
    Quantisation,
    require_noise,
)
from polycode_plugins.information.counts import plug_in
from polycode_plugins.information.gaussian import estimate_gaussian
from polycode_plugins.information.neighbours import ksg, ross
from polycode_plugins.information.panel import DEFAULT, KNOWN, MutualInformation, estimate
from polycode_plugins.information.published import estimate_as_published
from polycode_plugins.information.recommend import NAMES
from polycode_plugins.information.samples import Estimate

__all__ = [
    "DEFAULT",
    "KNOWN",
    "NAMES",
    "AdditiveGaussian",
    "AdditiveUniform",
    "Channel",
    "Dropout",
    "Estimate",
    "MutualInformation",
    "Quantisation",
    "estimate",
    "estimate_as_published",
    "estimate_gaussian",
    "ksg",
    "plug_in",
    "require_noise",
    "ross",
]
