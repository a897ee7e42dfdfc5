"""The built-in metrics and what one needs to write another.

Names load when they are first used: the processes that work out results (`processes`) import what
needs no torch, such as the fit of a power law, without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from polycode_plugins.metrics.spectrum.metric import Spectrum
    from polycode_plugins.metrics.spectrum.result import SpectrumResult

_HOMES = {
    "Accumulator": "base",
    "Action": "action.metric",
    "ActionResult": "action.result",
    "CKA": "cka.metric",
    "CKAResult": "cka.result",
    "Capacity": "capacity.metric",
    "CapacityResult": "capacity.result",
    "Covariance": "accumulators",
    "CrossCKA": "cka.cross",
    "CrossValidatedSpectrum": "spectrum.law.cross_validated",
    "FeatureCapacity": "capacity.feature_capacity",
    "Grave": "base",
    "Influences": "influences",
    "MINE": "mine.metric",
    "MINEResult": "mine.result",
    "Metric": "base",
    "MetricHook": "hook",
    "PairMetric": "pairs",
    "Partner": "pairs",
    "PowerLawAction": "action.power_law",
    "Reservoir": "reservoir",
    "Result": "base",
    "Spectrum": "spectrum.metric",
    "SpectrumResult": "spectrum.result",
    "StimulusCorrelation": "action.stimulus",
    "Trajectories": "action.trajectory",
    "View": "chapter",
    "capacity_of_weights": "capacity.weight_capacity",
    "cross_validated_spectrum": "spectrum.law.cross_validated",
    "power_law_action": "action.power_law",
    "stimulus_correlation": "action.stimulus",
    "trajectories": "action.trajectory",
}

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
