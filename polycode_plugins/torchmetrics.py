"""Every metric as a torchmetrics Metric, for training loops that log through torchmetrics.

    from polycode_plugins.torchmetrics import TorchMetric

    metric = TorchMetric("spectrum", "capacity")
    metric.update(activations)  # [samples, features], as often as you like
    metric.compute()  # {"spectrum.exponent": tensor(...), ...}
    metric.results()["spectrum"].plot()

Needs torchmetrics.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.activations import Activations, Site, default_axes
from polycode_plugins.errors import DataError, PluginError, StateError
from polycode_plugins.metrics.base import Metric, Result, as_activations
from polycode_plugins.runs.gathering import Statistics, describe_metric, make_metrics

try:
    import torchmetrics
except ModuleNotFoundError as error:
    raise PluginError(
        "polycode_plugins.torchmetrics needs torchmetrics; "
        "pip install 'polycode-plugins[torchmetrics]'"
    ) from error

_SITE = "values"


class TorchMetric(torchmetrics.Metric):  # type: ignore[misc]
    """One metric of polycode_plugins, or several that share their statistics, in torchmetrics.

    `update`, `compute`, `forward`, `reset`, `merge_state`, `sync`, `clone`, `state_dict` and
    `MetricCollection` work as for any other; merging and synchronising are exact. A stream gives
    the same numbers, the dependence of its samples among them, however it is cut into batches,
    objects, processes and saved states, and in whatever order these are merged. Only a path along
    rows (`Action(path="rows")`) depends on their order: the rows of a batch follow those of the
    batch before, also after `load_state_dict`; what is merged in comes after what is there (process
    after process where they are synchronised), and no path leads across the seam. MINE, too, goes
    by that order where it draws the samples that it keeps.

    A row of the batch is a document: positions of one row may depend on one another, rows are taken
    to be independent unless they are equal.

    The statistics stay on the device of the activations; what travels between processes or into a
    `state_dict` is one uint8 tensor with all of them.

    Args:
        metrics: names or objects, as in `pc.analyze`.
        axes: names of the axes of what `update` gets; the usual ones for its shape unless given.
        options: of `torchmetrics.Metric` (sync_on_compute, process_group, ...).

    Raises:
        PluginError: for an unknown metric, or none.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(
        self, *metrics: str | Metric, axes: tuple[str, ...] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.axes = axes
        self.metrics = make_metrics(metrics)
        self._statistics = self._fresh()
        self.add_state("packed", default=[], dist_reduce_fx=None)

    def update(self, values: Tensor | np.ndarray[Any, Any], mask: Tensor | None = None) -> None:
        """Take in one batch.

        Args:
            values: [samples, features], [batch, position, feature], [batch, channel, height, width]
                or what `axes` says.
            mask: bool [batch] or [batch, positions]; False is left out.

        Raises:
            DataError: for NaN or infinite values, or a width that changes.
        """
        tensor = as_activations(values, axes=self.axes).values
        axes = self.axes or default_axes(tensor.dim())
        self._statistics.receive(_SITE, Activations(tensor, axes, mask=mask))
        self._statistics.batches += 1

    def results(self) -> dict[str, Result]:
        """The full results by label, over what this process has seen (or all, while synced).

        Raises:
            DataError: where a metric is undefined, for example before the first update.
        """
        if not self._statistics.n_samples(_SITE):
            raise DataError("there is nothing to compute from; call update first")
        return {m.label: self._statistics.compute(_SITE, m) for m in self.metrics}

    def compute(self) -> dict[str, Tensor]:
        """The numbers of all results as scalars, keyed "label.field"; NaN where undefined.

        Raises:
            DataError: where a metric is undefined as a whole.
        """
        return {
            f"{label}.{field}": torch.tensor(
                float("nan") if value is None else float(value), dtype=torch.float64
            ).to(self.device)
            for label, result in self.results().items()
            for field, value in result.scalars().items()
            if not isinstance(value, str)
        }

    def _forward_reduce_state_update(self, *args: Any, **kwargs: Any) -> Any:
        """What `forward` does: the batch is taken in after those before it, and once more alone.

        torchmetrics would merge it, and no path along rows would lead into it.
        """
        return self._forward_full_state_update(*args, **kwargs)

    def reset(self) -> None:
        """Forget everything seen."""
        self._statistics = self._fresh()
        super().reset()

    # torchmetrics reads and writes the state under the name given to add_state: a list that holds
    # one tensor per contribution, to be merged when it is written.

    @property
    def packed(self) -> list[Tensor]:
        """Everything seen, as one uint8 tensor."""
        return [_pack(self._statistics).to(self.device)]

    @packed.setter
    def packed(self, parts: list[Tensor]) -> None:
        merged = self._fresh()
        for part in parts:
            _unpack_into(merged, part)
        self._statistics = merged

    def merge_state(self, incoming_state: dict[str, Any] | torchmetrics.Metric) -> None:
        """Take in what another TorchMetric of the same metrics, or its `metric_state`, has seen.

        It stays as it was. Its rows come after those seen here, see the class.

        Raises:
            StateError: for other metrics.
        """
        if isinstance(incoming_state, TorchMetric):
            incoming_state = incoming_state.metric_state
        if not isinstance(incoming_state, dict) or "packed" not in incoming_state:
            raise StateError(
                f"a {type(incoming_state).__name__} cannot be merged into a TorchMetric; give "
                "another TorchMetric, or its metric_state"
            )
        self.packed = [*self.packed, *incoming_state["packed"]]
        self._computed = None

    def _fresh(self) -> Statistics:
        return Statistics(self.metrics, [Site(_SITE)])


def _pack(statistics: Statistics) -> Tensor:
    from safetensors.torch import save

    about = {
        "metrics": [describe_metric(m) for m in statistics.metrics],
        "axes": statistics.sites[_SITE].axes,
        "batches": statistics.batches,
    }
    header = torch.frombuffer(bytearray(json.dumps(about).encode()), dtype=torch.uint8)
    data = save({"header": header, **{f"state/{k}": v for k, v in statistics.state().items()}})
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _unpack_into(merged: Statistics, part: Tensor) -> None:
    from safetensors.torch import load

    try:
        tensors = load(part.cpu().contiguous().numpy().tobytes())
        about = json.loads(tensors.pop("header").numpy().tobytes())
        metrics, axes, batches = about["metrics"], tuple(about["axes"]), int(about["batches"])
    except Exception as error:  # safetensors and json each have errors of their own
        raise StateError(f"the state of a TorchMetric is damaged: {error}") from error
    if metrics != [describe_metric(m) for m in merged.metrics]:
        raise StateError("the states are of different metrics, so they cannot be merged")
    other = Statistics(merged.metrics, [Site(_SITE, axes=axes)])
    other.load_state({name.removeprefix("state/"): t for name, t in tensors.items()})
    if other.n_samples(_SITE):
        merged.merge(other)
    merged.batches += batches
