"""The built-in metrics and what one needs to write another."""

from polycode_plugins.metrics.accumulators import Covariance
from polycode_plugins.metrics.action.metric import Action
from polycode_plugins.metrics.action.power_law import PowerLawAction, power_law_action
from polycode_plugins.metrics.action.result import ActionResult
from polycode_plugins.metrics.action.stimulus import StimulusCorrelation, stimulus_correlation
from polycode_plugins.metrics.action.trajectory import Trajectories, trajectories
from polycode_plugins.metrics.base import Accumulator, Grave, Metric, Result
from polycode_plugins.metrics.capacity.feature_capacity import FeatureCapacity
from polycode_plugins.metrics.capacity.metric import Capacity
from polycode_plugins.metrics.capacity.result import CapacityResult
from polycode_plugins.metrics.capacity.weight_capacity import capacity_of_weights
from polycode_plugins.metrics.chapter import View
from polycode_plugins.metrics.cka.cross import CrossCKA
from polycode_plugins.metrics.cka.metric import CKA
from polycode_plugins.metrics.cka.result import CKAResult
from polycode_plugins.metrics.hook import MetricHook
from polycode_plugins.metrics.influences import Influences
from polycode_plugins.metrics.mine.metric import MINE
from polycode_plugins.metrics.mine.result import MINEResult
from polycode_plugins.metrics.pairs import PairMetric, Partner
from polycode_plugins.metrics.reservoir import Reservoir
from polycode_plugins.metrics.spectrum.law.cross_validated import (
    CrossValidatedSpectrum,
    cross_validated_spectrum,
)
from polycode_plugins.metrics.spectrum.metric import Spectrum, SpectrumResult

__all__ = [
    "CKA",
    "MINE",
    "Accumulator",
    "Action",
    "ActionResult",
    "CKAResult",
    "Capacity",
    "CapacityResult",
    "Covariance",
    "CrossCKA",
    "CrossValidatedSpectrum",
    "FeatureCapacity",
    "Grave",
    "Influences",
    "MINEResult",
    "Metric",
    "MetricHook",
    "PairMetric",
    "Partner",
    "PowerLawAction",
    "Reservoir",
    "Result",
    "Spectrum",
    "SpectrumResult",
    "StimulusCorrelation",
    "Trajectories",
    "View",
    "capacity_of_weights",
    "cross_validated_spectrum",
    "power_law_action",
    "stimulus_correlation",
    "trajectories",
]
