"""A metric as a hook function of TransformerLens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from polycode_plugins.activations import Activations, Arrivals, Site
from polycode_plugins.adapters.evidence.points import hook_axes
from polycode_plugins.errors import DataError
from polycode_plugins.metrics.base import Accumulator, Metric, check_finite
from polycode_plugins.metrics.pairs import result_at, results_together
from polycode_plugins.precision import full_precision


class MetricHook:
    """One metric as a hook: gathers at every hook point it is called from, changes nothing."""

    def __init__(self, metric: Metric, mask: Tensor | None = None) -> None:
        self.metric = metric
        self.mask = mask
        self._accumulators: dict[str, Mapping[str, Accumulator]] = {}
        self._arrivals = Arrivals()

    def __call__(self, tensor: Tensor, *, hook: Any) -> None:
        """Take in the activations at `hook`."""
        name = str(hook.name)
        values = tensor.detach()
        axes = hook_axes(name, values, hook)
        batch = self._arrivals.numbered(name, Activations(values, axes, mask=self.mask))
        check_finite(batch, name)
        if name not in self._accumulators:
            self._accumulators[name] = self.metric.accumulators()
        with full_precision():
            for accumulator in self._accumulators[name].values():
                accumulator.update(batch)

    def compute(self) -> dict[str, Any]:
        """The results, keyed by the name each hook point reports.

        That is TransformerLens's own name. Where it has several for one point, it may be another
        than the one given to `fwd_hooks`: a TransformerBridge reports `blocks.1.hook_out` where
        `blocks.1.hook_resid_post` was given. `pc.attach` keys by the names asked for.

        Raises:
            DataError: when the hook was never called.
        """
        if not self._accumulators:
            raise DataError(
                "the hook was never called; pass it as fwd_hooks=[(name, hook)] and run the model"
            )
        sites = [Site(name, depth) for depth, name in enumerate(self._accumulators)]
        with full_precision():
            found = self._accumulators.__getitem__
            together = results_together(self.metric, sites, found)
            if together is not None:
                return dict(together)
            return {site.name: result_at(self.metric, site, sites, found) for site in sites}
