"""polycode_plugins: how redundant, smooth and explainable is a network's code.

    import polycode_plugins as pc

    analysis = pc.analyze("gpt2-xl", "texts.jsonl", sites="blocks.*.hook_resid_post")
    analysis.report("report.html")

Names load when they are first used, so that importing the package (and `polycode --help`) does not
wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from polycode_plugins._version import __version__
from polycode_plugins.errors import (
    DataError,
    ModelError,
    PluginError,
    PolycodeError,
    SiteError,
    StateError,
)

if TYPE_CHECKING:
    from polycode_plugins import adapters, explainers, information, metrics, pages, theory
    from polycode_plugins.activations import Activations, Site
    from polycode_plugins.adapters.base import Adapter, Batch, Capture
    from polycode_plugins.data_options import DataOptions
    from polycode_plugins.explainers.base import Explainer
    from polycode_plugins.explainers.comparison.compare import compare
    from polycode_plugins.explainers.comparison.outcome import Comparison
    from polycode_plugins.loading import load
    from polycode_plugins.metrics.base import Accumulator, Metric, Result
    from polycode_plugins.metrics.pairs import PairMetric
    from polycode_plugins.runs.analysis import Analysis
    from polycode_plugins.runs.analyze import analyze
    from polycode_plugins.runs.attach import Probe, attach
    from polycode_plugins.runs.cross_cka import cka
    from polycode_plugins.runs.difference import RunDifference, diff
    from polycode_plugins.runs.measure import measure

_HOMES = {
    "Accumulator": "metrics.base",
    "Activations": "activations",
    "Adapter": "adapters.base",
    "Analysis": "runs.analysis",
    "Batch": "adapters.base",
    "Capture": "adapters.base",
    "Comparison": "explainers.comparison.outcome",
    "DataOptions": "data_options",
    "Explainer": "explainers.base",
    "Metric": "metrics.base",
    "PairMetric": "metrics.pairs",
    "Probe": "runs.attach",
    "Result": "metrics.base",
    "RunDifference": "runs.difference",
    "Site": "activations",
    "analyze": "runs.analyze",
    "attach": "runs.attach",
    "cka": "runs.cross_cka",
    "compare": "explainers.comparison.compare",
    "diff": "runs.difference",
    "load": "loading",
    "measure": "runs.measure",
}
_MODULES = ("adapters", "explainers", "information", "metrics", "pages", "theory")

__all__ = [
    "Accumulator",
    "Activations",
    "Adapter",
    "Analysis",
    "Batch",
    "Capture",
    "Comparison",
    "DataError",
    "DataOptions",
    "Explainer",
    "Metric",
    "ModelError",
    "PairMetric",
    "PluginError",
    "PolycodeError",
    "Probe",
    "Result",
    "RunDifference",
    "Site",
    "SiteError",
    "StateError",
    "__version__",
    "adapters",
    "analyze",
    "attach",
    "cka",
    "compare",
    "diff",
    "explainers",
    "information",
    "load",
    "measure",
    "metrics",
    "pages",
    "theory",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
