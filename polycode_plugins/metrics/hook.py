"""A metric as a hook function of TransformerLens."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from polycode_plugins.activations import Activations, Arrivals, Site
from polycode_plugins.adapters.evidence.frames import PassUnderWay, pass_under_way
from polycode_plugins.adapters.evidence.points import check_alike, hook_axes, refuse_decoder
from polycode_plugins.adapters.evidence.special import counted_special, says_special
from polycode_plugins.adapters.hooks import in_backward, is_fake, without_values
from polycode_plugins.errors import DataError, PolycodeError
from polycode_plugins.metrics.base import Accumulator, Metric
from polycode_plugins.metrics.inputs import check_finite
from polycode_plugins.metrics.pairs import result_at, results_together
from polycode_plugins.precision import full_precision


class MetricHook:
    """One metric as a hook: gathers at every hook point it is called from, changes nothing.

    What it cannot read is an error of `compute()`: the user's pass goes on.
    """

    def __init__(self, metric: Metric, mask: Tensor | None = None) -> None:
        self.metric = metric
        self.mask = mask
        self._accumulators: dict[str, Mapping[str, Accumulator]] = {}
        self._arrivals = Arrivals()
        self._problems: dict[str, PolycodeError] = {}
        self._special: dict[str, int] = {}  # rows of padding and special tokens that were counted
        self._names: dict[int, list[str]] = {}  # of hook points that were found
        self._also: dict[str, str] = {}  # other names of a hook point
        self._latest: dict[int, tuple[weakref.ref[Any] | None, Tensor]] = {}

    def __call__(self, tensor: Any, hook: Any) -> Any:
        """Take in the activations at `hook`; what is returned changes nothing."""
        around = pass_under_way()
        point = getattr(hook, "_target", hook)  # what shows an alias for its name
        if not (in_backward() or without_values() or is_fake(tensor)):
            # Else it is computed again, or a dry run: no activations of anybody's.
            names = self._names_of(point, around)
            if not self._problems.keys() & set(names):
                try:
                    self._take(names, tensor, point, around)
                except PolycodeError as error:
                    self._problems.update(dict.fromkeys(names, error))
        # TransformerLens 3 (whose points have no pos_dim) puts the axis of the batch back to what a
        # hook returns, and fails at None. What it gets is what it gave.
        return tensor if around.unbatched and not hasattr(point, "pos_dim") else None

    def _names_of(self, point: Any, around: PassUnderWay) -> list[str]:
        """The names by which the hook point was asked for; its own where that is not seen."""
        own = str(point.name)
        known: Mapping[str, Any] = getattr(around.model, "hook_dict", None) or {}
        every = self._names.get(id(point))
        if every is None:
            every = [name for name, other in known.items() if other is point] or [own]
            self._names[id(point)] = every
        wanted = [name for name, function in around.hooks if function is self]
        asked = [name for name in wanted if isinstance(name, str) and name in every]
        if not asked:
            asked = [n for f in wanted if callable(f) for n in every if f(n)][:1]
        names = list(dict.fromkeys(asked)) or [own]
        for name in every:
            self._also.setdefault(name, names[0])
        return names

    def _take(self, names: list[str], tensor: Any, point: Any, around: PassUnderWay) -> None:
        refuse_decoder(names[0], around.model)
        if isinstance(tensor, Tensor) and not tensor.numel():
            return
        values = tensor.detach() if isinstance(tensor, Tensor) else tensor
        tokens = None if around.tokens is None else tuple(around.tokens.shape)
        if around.unbatched and isinstance(values, Tensor) and (tokens or (1,))[0] == 1:
            values = values[None]
        if tokens is not None and isinstance(values, Tensor) and around.model is None:
            tokens = None  # integers of somebody else's function
        axes = hook_axes(names[0], values, point, tokens)
        if self._repeats(point, values, around, names[0]):
            return
        for name in names:
            batch = self._arrivals.numbered(name, Activations(values, axes, mask=self.mask))
            check_finite(batch, name)
            if name not in self._accumulators:
                self._accumulators[name] = self.metric.accumulators()
            with full_precision():
                for accumulator in self._accumulators[name].values():
                    accumulator.update(batch)
            if self.mask is None and "position" in axes:
                found = counted_special(around.model, around.tokens, around.attention)
                self._special[name] = self._special.get(name, 0) + (found or 0)

    def _repeats(self, point: Any, values: Tensor, around: PassUnderWay, name: str) -> bool:
        """Whether this hook point fires again in one pass, with the same values."""
        digest = values.sum(dtype=torch.float64)
        before, first = self._latest.get(id(point), (None, digest))
        call = None if around.call is None else around.call()
        if call is None or before is None or before() is not call:
            self._latest[id(point)] = around.call, digest
            return False
        check_alike(name, first, digest)
        return True

    def compute(self) -> dict[str, Any]:
        """The results, keyed by the names that were given to `fwd_hooks`.

        Where hooks were added in another way than by `run_with_hooks`, the keys are the names that
        the hook points report; the result is found by their other names as well. A warning says how
        many rows are padding or special tokens, where no mask says what counts.

        Raises:
            DataError: when the hook was never called.
            PolycodeError: for what could not be read.
        """
        for error in self._problems.values():
            raise error
        if not self._accumulators:
            raise DataError(
                "the hook was never called; pass it as fwd_hooks=[(name, hook)] and run the model"
            )
        says_special(self._special, "as_hook(mask=...)")
        sites = [Site(name, depth) for depth, name in enumerate(self._accumulators)]
        with full_precision():
            found = self._accumulators.__getitem__
            together = results_together(self.metric, sites, found)
            if together is None:
                together = {s.name: result_at(self.metric, s, sites, found) for s in sites}
        return _Named(together, self._also)


class _Named(dict[str, Any]):
    """Results by name, found by the other names of their hook points too."""

    def __init__(self, found: Mapping[str, Any], also: Mapping[str, str]) -> None:
        super().__init__(found)
        self._also = dict(also)

    def __missing__(self, name: str) -> Any:
        other = self._also.get(name)
        if other is None or other not in self:
            raise KeyError(name)
        return self[other]
