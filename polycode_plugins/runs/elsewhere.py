"""Statistics that an engine's workers gather: made there by name, fetched when they are needed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from polycode_plugins.activations import Site
from polycode_plugins.adapters.base import Adapter
from polycode_plugins.adapters.engine import EngineCapture, told
from polycode_plugins.errors import PluginError, PolycodeError, SiteError
from polycode_plugins.metrics.base import Metric
from polycode_plugins.metrics.names import describe_metric, rebuild_metrics
from polycode_plugins.runs.gathering import Statistics
from polycode_plugins.runs.memory import TooLarge


class Elsewhere:
    """The statistics of an open capture of an engine.

    Args:
        capture: of the adapter.
        metrics: what is gathered.
        sites: where.
        before: what was gathered before, of an interrupted run.
    """

    def __init__(
        self,
        capture: EngineCapture,
        metrics: Sequence[Metric],
        sites: Sequence[Site],
        before: Statistics | None = None,
    ) -> None:
        self.capture = capture
        self._metrics, self._sites, self._before = metrics, sites, before

    def fetch(self) -> Statistics:
        """Everything so far.

        Raises:
            StateError: for what the workers cannot have gathered.
        """
        tensors = self.capture.refresh(state=True)
        found = Statistics(self._metrics, self._sites)
        found.load_state(tensors)
        found.leave_out(self.capture.left_out)
        if self._before is not None:
            found.narrow |= self._before.narrow
            found.merge(self._before)
        return found

    def check(self) -> None:
        """See that everything that came could be read and will have a result.

        Raises:
            PolycodeError: what the workers found.
        """
        self.capture.refresh()
        for error in self.capture.problems.values():
            raise error
        require_whole(self.capture)


@contextmanager
def gathered_elsewhere(
    adapter: Adapter,
    metrics: Sequence[Metric],
    sites: Sequence[Site],
    *,
    before: Statistics | None = None,
    rows: int | None = None,
    memory: int | None = None,
) -> Iterator[Elsewhere]:
    """Have the workers of an engine gather.

    Raises:
        PluginError: for a metric that they cannot make.
        PolycodeError: whatever the adapter refuses.
    """
    described = [_described(metric) for metric in metrics]
    with adapter.gathering(sites, described, rows=rows, memory=memory) as capture:
        yield Elsewhere(capture, metrics, sites, before)


def _described(metric: Metric) -> dict[str, object]:
    """A metric as an engine's worker makes it again.

    Raises:
        PluginError: for one that is no installed plugin, or has settings that are no JSON.
    """
    described = describe_metric(metric)
    try:
        (again,) = rebuild_metrics([json.loads(json.dumps(described))])
    except (PolycodeError, TypeError, ValueError) as error:
        raise _not_made(metric, str(error)) from error
    if type(again) is not type(metric) or again.options() != metric.options():
        raise _not_made(metric, f"its name makes a {type(again).__name__}")
    for name, accumulator in metric.accumulators().items():
        if again.accumulators()[name].key() != accumulator.key():
            raise _not_made(metric, f"made again, it gathers another {name!r}")
    return described


def _not_made(metric: Metric, why: str) -> PluginError:
    return PluginError(
        f"the metric {metric.label!r} cannot be gathered in an engine's workers, which make it by "
        f"the name of its entry point and its settings as JSON ({why}); install it as a plugin, "
        "or read the folder with adapter='transformers'"
    )


def require_whole(capture: EngineCapture) -> None:
    """See that all sites have fired, can have a result, and fit.

    Raises:
        PolycodeError: what there is to say instead.
    """
    _require_fit(capture)
    name = next((name for name, count in capture.fired.items() if not count), None)
    if name is None:
        return
    waits = int(capture.report.get("under_way", 0))
    why = (
        f"the {waits} requests that passed through it have not ended; wait for them"
        if waits
        else "give the engine prompts inside the 'with' block, and a site that they pass through"
    )
    raise SiteError(f"site {name!r} did not fire: {why}")


def _require_fit(capture: EngineCapture) -> None:
    failure = capture.report.get("failure")
    if failure is None:
        return
    if failure["kind"] == TooLarge.__name__:
        raise TooLarge(failure["said"], failure["groups"])
    raise told(failure["kind"], failure["said"])
