"""The built-in metrics and what one needs to write another."""

from polycode_plugins.metrics.accumulators import Covariance
from polycode_plugins.metrics.base import Accumulator, Metric, MetricHook, Result
from polycode_plugins.metrics.spectrum import Spectrum, SpectrumResult

__all__ = [
    "Accumulator",
    "Covariance",
    "Metric",
    "MetricHook",
    "Result",
    "Spectrum",
    "SpectrumResult",
]
