"""polycode_plugins: metrics of a network's code, as plugins on the models people already use.

    import polycode_plugins as pc

    analysis = pc.analyze("gpt2-xl", "texts.jsonl", metrics=["spectrum"], sites="blocks.*.hook_resid_post")
    analysis.report("report.html")
"""

from polycode_plugins import metrics, theory
from polycode_plugins._version import __version__
from polycode_plugins.activations import Activations, Site
from polycode_plugins.adapters.base import Adapter, Batch, Capture, DataOptions
from polycode_plugins.analysis import Analysis
from polycode_plugins.driver import analyze
from polycode_plugins.errors import (
    DataError,
    ModelError,
    PluginError,
    PolycodeError,
    SiteError,
    StateError,
)
from polycode_plugins.loading import load
from polycode_plugins.metrics.base import Accumulator, Metric, Result
from polycode_plugins.probe import Probe, attach, measure

__all__ = [
    "Accumulator",
    "Activations",
    "Adapter",
    "Analysis",
    "Batch",
    "Capture",
    "DataError",
    "DataOptions",
    "Metric",
    "ModelError",
    "PluginError",
    "PolycodeError",
    "Probe",
    "Result",
    "Site",
    "SiteError",
    "StateError",
    "__version__",
    "analyze",
    "attach",
    "load",
    "measure",
    "metrics",
    "theory",
]
