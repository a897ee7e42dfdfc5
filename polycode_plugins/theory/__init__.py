"""Closed forms of the papers, as pure functions: arrays in; floats, arrays or frozen results out.

Information is in bits (logarithms to base 2) throughout. Where a paper errs, `mode="corrected"` is
the default and `mode="as_published"` reproduces the paper. NumPy arrays, nested sequences and torch
tensors are accepted; the arithmetic is float64. An argument outside its domain raises `DataError`.
"""

from __future__ import annotations

from polycode_plugins.theory.action import (
    ActionMoments,
    action_moments,
    action_variance,
    expected_action,
)
from polycode_plugins.theory.channels import ChannelCapacity, blahut_arimoto, dropout_channel
from polycode_plugins.theory.dropout import dropout_capacity
from polycode_plugins.theory.features import (
    allocation_loss,
    feature_capacity,
    optimal_allocation,
    optimal_embedding,
    quadratic_loss,
)
from polycode_plugins.theory.gaussian import (
    WaterFilling,
    gaussian_capacity,
    gaussian_entropy,
    gaussian_information,
    rate_distortion,
)
from polycode_plugins.theory.geometry import Block, Blocks, find_blocks, polytope
from polycode_plugins.theory.power_law import power_law_action, power_law_entropy
from polycode_plugins.theory.sparse import dimensions_per_feature, sparse_entropy

__all__ = [
    "ActionMoments",
    "Block",
    "Blocks",
    "ChannelCapacity",
    "WaterFilling",
    "action_moments",
    "action_variance",
    "allocation_loss",
    "blahut_arimoto",
    "dimensions_per_feature",
    "dropout_capacity",
    "dropout_channel",
    "expected_action",
    "feature_capacity",
    "find_blocks",
    "gaussian_capacity",
    "gaussian_entropy",
    "gaussian_information",
    "optimal_allocation",
    "optimal_embedding",
    "polytope",
    "power_law_action",
    "power_law_entropy",
    "quadratic_loss",
    "rate_distortion",
    "sparse_entropy",
]
