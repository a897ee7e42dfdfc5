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
from polycode_plugins.devices import on_host
from polycode_plugins.errors import DataError, PluginError, StateError, near
from polycode_plugins.metrics.base import Metric, Result
from polycode_plugins.metrics.inputs import as_activations
from polycode_plugins.metrics.names import describe_metric, make_metrics
from polycode_plugins.runs.gathering import Statistics

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

    Statistics are kept in float64, so `set_dtype` changes none of them; it decides the type of the
    one number of `value`. A batch of which a metric is
    undefined (too few rows) is kept like any other: `forward` returns NaN for it.

    Args:
        metrics: names or objects, as in `pc.analyze`.
        axes: names of the axes of what `update` gets; the usual ones for its shape unless given.
        value: the one number that `compute` returns, "exponent" or "spectrum.exponent", as wrappers
            want it that work on one tensor (BootStrapper, MetricTracker); all of them in a dict
            unless given.
        options: of `torchmetrics.Metric` (sync_on_compute, process_group, ...).

    Raises:
        PluginError: for an unknown metric, or none.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(
        self,
        *metrics: str | Metric,
        axes: tuple[str, ...] | None = None,
        value: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.axes = axes
        self.value = value
        self.metrics = make_metrics(metrics)
        self._keys: list[str] = []  # of what the latest `compute` returned
        self._one_batch = False  # whether `forward` asks for the numbers of one batch
        self._statistics = self._fresh()
        self.add_state("packed", default=[], dist_reduce_fx=None)

    @on_host()
    def update(self, values: Tensor | np.ndarray[Any, Any], mask: Tensor | None = None) -> None:
        """Take in one batch.

        Args:
            values: [samples, features], [batch, position, feature], [batch, channel, height, width]
                or what `axes` says.
            mask: bool [batch] or [batch, positions]; False is left out.

        Raises:
            DataError: for NaN or infinite values (on a GPU by `compute` at the latest), a width
                that changes, integers (token numbers, labels) and attention weights.
        """
        tensor = as_activations(values, axes=self.axes).values
        axes = self.axes or default_axes(tensor.dim())
        self._statistics.receive(_SITE, Activations(tensor, axes, mask=mask))
        self._statistics.batches += 1

    @on_host()
    def results(self) -> dict[str, Result]:
        """The full results by label, over what this process has seen (or all, while synced).

        Raises:
            DataError: where a metric is undefined, for example before the first update.
        """
        if not self._statistics.n_samples(_SITE):
            raise DataError("there is nothing to compute from; call update first")
        return {m.label: self._statistics.compute(_SITE, m) for m in self.metrics}

    @on_host()
    def compute(self) -> dict[str, Tensor] | Tensor:
        """The numbers of all results as scalars, keyed "label.field"; NaN where undefined.

        With `value` that number alone.

        Raises:
            DataError: where a metric is undefined as a whole, or has no number of that name.
        """
        try:
            found = self._numbers()
        except DataError:
            if not self._one_batch:
                raise
            found = {key: self._scalar(None) for key in self._keys}
            return found if self.value is None else self._scalar(None).to(self.dtype)
        self._keys = list(found)
        # Wrappers compute with it in the type that stock metrics have.
        return found if self.value is None else self._chosen(found).to(self.dtype)

    def _numbers(self) -> dict[str, Tensor]:
        return {
            f"{label}.{field}": self._scalar(value)
            for label, result in self.results().items()
            for field, value in result.scalars().items()
            if not isinstance(value, str)
        }

    def _scalar(self, value: float | None) -> Tensor:
        number = float("nan") if value is None else float(value)
        return torch.tensor(number, dtype=torch.float64).to(self.device)

    def _chosen(self, numbers: dict[str, Tensor]) -> Tensor:
        assert self.value is not None
        named = [key for key in numbers if self.value in (key, key.partition(".")[2])]
        if len(named) == 1:
            return numbers[named[0]]
        if named:
            raise DataError(
                f"value={self.value!r} is a number of several metrics; give one of "
                f"{', '.join(named)}"
            )
        raise DataError(f"there is no number {self.value!r}{near(self.value, numbers)}")

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw the numbers that say most, as other metrics of torchmetrics draw theirs.

        `results()["spectrum"].plot()` draws a result as a whole.

        Args:
            val: what `compute` or `forward` returned, or a list of such, drawn by step; by default
                what `compute` returns.
            ax: axes to draw into.

        Returns:
            The figure (None where `ax` is given) and the axes.

        Raises:
            ModuleNotFoundError: where matplotlib is not installed.
        """
        value = self.compute() if val is None else val
        if isinstance(value, dict):
            value = self._headline(value)
        elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            shared = [key for key in value[0] if all(key in one for one in value)]
            value = [self._headline({key: one[key] for key in shared}) for one in value]
        return self._plot(value, ax)

    def _headline(self, numbers: dict[str, Tensor]) -> dict[str, Tensor]:
        first = [f"{m.label}.{field}" for m in self.metrics for field in m.result.headline]
        chosen = {key: numbers[key] for key in first if key in numbers}
        return chosen or numbers

    def _forward_full_state_update(self, *args: Any, **kwargs: Any) -> Any:
        """What `forward` does: the batch is taken in after those before it, and once more alone."""
        self._one_batch = True
        try:
            return super()._forward_full_state_update(*args, **kwargs)
        finally:
            self._one_batch = False

    def _forward_reduce_state_update(self, *args: Any, **kwargs: Any) -> Any:
        """The same: torchmetrics would merge the batch, and no path along rows would lead to it."""
        return self._forward_full_state_update(*args, **kwargs)

    def _apply(self, fn: Any, exclude_state: Any = "") -> Any:
        """Move to a device. What is packed are bytes, which no other type holds."""
        this = super()._apply(fn, exclude_state=(*exclude_state, "packed"))
        this._computed = None  # in another type, where it was computed before
        return this

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
