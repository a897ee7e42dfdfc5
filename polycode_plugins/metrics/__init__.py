"""The built-in metrics and what one needs to write another."""

from polycode_plugins.metrics.accumulators import Covariance
from polycode_plugins.metrics.action import Action
from polycode_plugins.metrics.action_power_law import PowerLawAction, power_law_action
from polycode_plugins.metrics.action_result import ActionResult
from polycode_plugins.metrics.base import Accumulator, Metric, MetricHook, Result
from polycode_plugins.metrics.capacity import Capacity
from polycode_plugins.metrics.capacity_result import CapacityResult
from polycode_plugins.metrics.cross_validated import (
    CrossValidatedSpectrum,
    cross_validated_spectrum,
)
from polycode_plugins.metrics.feature_capacity import FeatureCapacity
from polycode_plugins.metrics.joint import Reservoir
from polycode_plugins.metrics.mine import MINE
from polycode_plugins.metrics.mine_result import MINEResult
from polycode_plugins.metrics.spectrum import Spectrum, SpectrumResult
from polycode_plugins.metrics.stimulus import StimulusCorrelation, stimulus_correlation
from polycode_plugins.metrics.trajectory import Trajectories, trajectories
from polycode_plugins.metrics.weight_capacity import capacity_of_weights

__all__ = [
    "MINE",
    "Accumulator",
    "Action",
    "ActionResult",
    "Capacity",
    "CapacityResult",
    "Covariance",
    "CrossValidatedSpectrum",
    "FeatureCapacity",
    "MINEResult",
    "Metric",
    "MetricHook",
    "PowerLawAction",
    "Reservoir",
    "Result",
    "Spectrum",
    "SpectrumResult",
    "StimulusCorrelation",
    "Trajectories",
    "capacity_of_weights",
    "cross_validated_spectrum",
    "power_law_action",
    "stimulus_correlation",
    "trajectories",
]
