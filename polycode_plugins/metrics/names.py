"""Metrics from their names and settings, and back: what a call, a command and a saved run say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from polycode_plugins import plugins
from polycode_plugins.errors import DataError, PluginError, StateError
from polycode_plugins.metrics.base import Metric


def make_metrics(metrics: Iterable[str | Metric] | str | Metric) -> list[Metric]:
    """Metric objects for names and objects, each with a label of its own.

    Raises:
        PluginError: for an unknown name, something that is no metric, or two equal labels.
        StateError: for settings that are not of their types.
        DataError: for settings that are not finite.
    """
    if isinstance(metrics, str | Metric):
        metrics = [metrics]
    if not isinstance(metrics, Iterable):
        raise PluginError(
            f"metrics are names or objects, one or a list of them, and this is a "
            f"{type(metrics).__name__}: {metrics!r}"
        )
    made: list[Metric] = []
    for metric in metrics:
        if isinstance(metric, str):
            metric = make_metric(metric)
        if not isinstance(metric, Metric):
            raise PluginError(
                f"{metric!r} is not a metric; pass a name ({', '.join(_metric_names())}) or an "
                "object such as pc.metrics.Spectrum()"
            )
        _check_lasting(metric)
        made.append(metric)
    if not made:
        raise PluginError(f"no metric was asked for; choose from {', '.join(_metric_names())}")
    labels = [m.label for m in made]
    double = next((label for label in labels if labels.count(label) > 1), None)
    if double is not None:
        raise PluginError(
            f"two metrics are labelled {double!r}; give one of them another label, for example "
            f"Spectrum(label='{double}-2')"
        )
    return made


def _check_lasting(metric: Metric) -> None:
    """Refuse, before any data is read, settings with which no saved run could be read again."""
    for field in fields(metric):
        value = getattr(metric, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise DataError(
                f"{field.name} of the metric {metric.label!r} is {value}, which a saved run cannot "
                "hold; give a finite number"
            )
    type(metric).from_options(metric.options())


def rebuild_metrics(saved: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """The metrics of a saved run, from what `describe_metric` wrote.

    Raises:
        PluginError: for a metric that is not installed, or does not import.
        StateError: for anything else than what `describe_metric` writes.
    """
    for one in saved:
        if not isinstance(one, Mapping) or not isinstance(one.get("metric"), str):
            raise StateError(f"run.json misstates a metric: {one!r}")
        if not isinstance(one.get("options"), Mapping):
            raise StateError(f"run.json misstates the settings of the metric {one['metric']!r}")
    return [make_metric(m["metric"], m["options"]) for m in saved]


def make_metric(name: str, options: Mapping[str, Any] | None = None) -> Metric:
    """The installed metric called `name`, with settings or its defaults.

    Raises:
        PluginError: for an unknown name, one that does not import, or is no metric.
        StateError: for settings that the metric does not have, or does not take.
    """
    made = plugins.load("metrics", name)
    if not isinstance(made, type) or not issubclass(made, Metric):
        raise PluginError(
            f"the plugin {name!r} is a {type(made).__name__} and no class of metrics; it has to be "
            "a subclass of polycode_plugins.Metric"
        )
    return made.from_options(options or {})


def describe_metric(metric: Metric) -> dict[str, Any]:
    """A metric as JSON values, enough to make it again."""
    kind = type(metric)
    name = kind.name
    if not kind.__module__.startswith("polycode_plugins."):  # built-ins own their names
        target = f"{kind.__module__}:{kind.__qualname__}"
        name = next((p.reference for p in plugins.find("metrics") if p.target == target), name)
    return {"metric": name, "options": metric.options()}


def _metric_names() -> list[str]:
    return [p.reference for p in plugins.find("metrics")]
