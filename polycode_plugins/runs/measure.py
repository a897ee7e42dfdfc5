"""`measure`: metrics of activations that are stored."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from polycode_plugins.activations import Activations, Arrivals, Site
from polycode_plugins.adapters.evidence.points import hook_axes, refuse_decoder
from polycode_plugins.adapters.evidence.special import counted_special, says_special
from polycode_plugins.adapters.patterns import Sites, by_default, choose
from polycode_plugins.devices import on_host
from polycode_plugins.errors import DataError, PolycodeError
from polycode_plugins.files.provenance import Rows, environment
from polycode_plugins.metrics.base import Metric
from polycode_plugins.metrics.inputs import as_activations
from polycode_plugins.metrics.names import make_metrics
from polycode_plugins.runs.analysis import Analysis, finish, record
from polycode_plugins.runs.gathering import Statistics, listed

_TOKENS = ("embed.hook_in", "hook_tokens")  # hook points of token numbers
_STREAM = ("hook_embed", "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_mlp_out")


def measure(
    activations: Mapping[str, Any] | Any,
    metrics: Iterable[str | Metric] | str | Metric = ("spectrum",),
    sites: Sites = None,
    *,
    mask: Tensor | None = None,
    axes: tuple[str, ...] | None = None,
) -> Analysis:
    """Metrics of activations that are already there.

    Args:
        activations: a TransformerLens ActivationCache, or any mapping of site to tensor: [samples,
            features], [batch, position, features], [batch, position, head, features] for names
            that TransformerLens uses for heads, images [batch, channels, height, width], or
            Activations. Of a cache the axes are known from its model and its other tensors.
        metrics: names or metric objects.
        sites: names, globs or a function of a name that says which to measure. All of them unless
            given; what of a cache of TransformerLens holds no activations then (token numbers,
            attention weights), or is too narrow for a metric, is left out, with a warning that
            names it.
        mask: bool [batch] or [batch, position]; False is left out (padding, special tokens).
            Without one every position counts, and a warning says how many of them are padding or
            special tokens, where the cache has its token numbers.
        axes: names of the axes of every tensor, where they are not the usual ones.

    Raises:
        DataError: for an empty mapping, or activations that cannot be read.
        SiteError: for a name or glob that finds nothing.
    """
    with on_host():
        items = list(activations.items()) if hasattr(activations, "items") else None
        if items is None and not (isinstance(activations, Sized) and len(activations) == 0):
            raise DataError(
                f"measure takes a mapping of site to tensor, and this is a "
                f"{type(activations).__name__}; for one tensor use pc.metrics.Spectrum().measure(x)"
            )
        if not items:
            raise DataError(
                "there is nothing to measure: pass an ActivationCache or a mapping of site to "
                "tensor"
            )
        values = {str(name): value for name, value in items}
        held = [Site(name, depth) for depth, name in enumerate(values)]
        chosen = held if sites is None else choose(sites, held, list(values))
        cache = _Cache(activations, values)
        lenient = by_default(sites) and cache.of_lens  # nobody asked for each tensor of a cache
        batches, unread = _read_all(cache, chosen, axes, mask, lenient=lenient)
        known = [replace(s, axes=batches[s.name].axes) for s in chosen if s.name in batches]
        statistics = Statistics(make_metrics(metrics), known)
        for name, batch in batches.items():
            statistics.receive(name, Arrivals().numbered(name, batch))
        if lenient:
            statistics.drop_refused()
        statistics.check_sites()
        special = {}
        if mask is None:
            special = {
                n: cache.special() for n in statistics.sites if "position" in batches[n].axes
            }
            says_special(special, "measure(mask=...)")
        if gone := {**unread, **statistics.narrow}:
            warnings.warn(_left_out(gone), UserWarning, stacklevel=2)
        run = record(
            statistics,
            **environment(),
            model={},
            data="measured",
            seed=None,
            options={},
            rows=Rows().to_json(),
            complete=True,
            narrow=dict(statistics.narrow),
            unread=unread,
            special={name: n for name, n in special.items() if n},
        )
        return finish(statistics, run)


def _left_out(gone: Mapping[str, str]) -> str:
    first = next(iter(gone.values()))
    return (
        "tensors of the cache that hold no activations or are too narrow are left out, "
        f"{len(gone)} of them: {listed(list(gone))} ({first}); name sites= to choose"
    )


def _read_all(
    cache: _Cache,
    chosen: Sequence[Site],
    axes: tuple[str, ...] | None,
    mask: Tensor | None,
    *,
    lenient: bool,
) -> tuple[dict[str, Activations], dict[str, str]]:
    """The activations at the sites; and, where nobody named them, why some cannot be read."""
    batches: dict[str, Activations] = {}
    unread: dict[str, str] = {}
    first: PolycodeError | None = None
    for site in chosen:
        try:
            batches[site.name] = cache.read(site.name, axes, mask)
        except PolycodeError as error:
            said = str(error) if repr(site.name) in str(error) else f"{site.name!r}: {error}"
            first = first or type(error)(said)
            if not lenient:
                raise first from error
            unread[site.name] = said
    if not batches and first is not None:
        raise first
    return batches, unread


class _Cache:
    """A mapping of activations, and what its other tensors and its model tell of each.

    Attributes:
        of_lens: whether its names are those of TransformerLens.
    """

    def __init__(self, source: Any, values: Mapping[str, Any]) -> None:
        self._values = values
        self._model = getattr(source, "model", None)
        self._points: Mapping[str, Any] = getattr(self._model, "hook_dict", None) or {}
        self.of_lens = any(".hook_" in f".{name}" for name in values)
        self._batched: bool | None = getattr(source, "has_batch_dim", None)
        ids = (values.get(name) for name in _TOKENS)
        self._ids = next((v for v in ids if isinstance(v, Tensor) and v.dim() in (1, 2)), None)
        if self._batched is None and self._ids is not None:
            self._batched = self._ids.dim() == 2
        if self._ids is not None and self._ids.dim() == 1:
            self._ids = self._ids[None] if self._batched is False else None
        self._tokens = self._shape()

    def _shape(self) -> tuple[int, int] | None:
        """(rows, positions) of the pass, where the tensors agree."""
        if self._ids is not None:
            return self._ids.shape[0], self._ids.shape[1]
        shapes: Counter[tuple[int, int]] = Counter()
        for name, value in self._values.items():
            if name.rpartition(".")[2] in _STREAM and isinstance(value, Tensor):
                whole = value[None] if self._batched is False and value.dim() == 2 else value
                if whole.dim() == 3:
                    shapes[whole.shape[0], whole.shape[1]] += 1
        return next(iter(shapes)) if len(shapes) == 1 else None

    def special(self) -> int:
        """Rows that are padding or special tokens, as far as the cache tells."""
        return counted_special(self._model, self._ids) or 0

    def read(self, name: str, axes: tuple[str, ...] | None, mask: Tensor | None) -> Activations:
        """One tensor of the mapping.

        Raises:
            PolycodeError: for what holds no activations, or may be read in two ways.
        """
        value = self._values[name]
        lens = ".hook_" in f".{name}" and not isinstance(value, Activations)
        if axes is None and lens:
            value = torch.as_tensor(value) if hasattr(value, "__array__") else value
            refuse_decoder(name, self._model)
            if self._batched is False and isinstance(value, Tensor):
                # The axis is gone where it was 1, which is where it was the batch.
                value = value[None]
            if isinstance(value, Tensor) and value.dim() > 1:
                point = self._points.get(name.removesuffix("_grad"))
                axes = hook_axes(name, value, point, self._tokens)
        elif axes is None and isinstance(value, Tensor) and value.dim() == 4:
            self._check_image(name, value)
        return as_activations(value, axes=axes, mask=mask)

    def _check_image(self, name: str, value: Tensor) -> None:
        """Refuse to read heads as an image beside tensors of positions."""
        places = {
            (v.shape[0], v.shape[1])
            for v in self._values.values()
            if isinstance(v, Tensor) and v.dim() == 3
        }
        shape = value.shape
        if (shape[0], shape[1]) in places or (shape[0], shape[2]) in places:
            raise DataError(
                f"{name!r} has shape {tuple(shape)}, and whether it is an image [batch, channel, "
                "height, width] or has heads, as other tensors here have positions, is not known; "
                "name the axes with axes=, for example ('batch', 'head', 'position', 'feature')"
            )
