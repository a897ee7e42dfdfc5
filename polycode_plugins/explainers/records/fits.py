"""What some kinds of units need to know of a site beforehand, found in a pass of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from polycode_plugins.activations import Activations, Site
from polycode_plugins.adapters.base import Adapter, Batch
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import DataError
from polycode_plugins.explainers.records.random_texts import RandomTexts
from polycode_plugins.explainers.units.nonlinearities import Nonlinearity, nonlinearity_of
from polycode_plugins.metrics.accumulators import Covariance

#: Texts whose tokens independent components and matches are found on.
POOLED_TEXTS = 512
#: Kinds by what they need.
_COVARIANCE, _POOL, _LAYER = (
    frozenset({"component", "covariance"}),
    frozenset({"independent", "matched"}),
    frozenset({"rotated"}),
)
FITTED = _COVARIANCE | _POOL | _LAYER
_NEAREST = 16  # sites before one among which its inputs are sought
_PROOF_TOKENS = 512  # tokens by which they are proven


@dataclass(frozen=True, eq=False)
class Fit:
    """What is known of a site; what no kind needs is not found.

    Attributes:
        covariance: of its activations.
        tokens: float32 [tokens, width], the activations of random texts.
        layer: the nonlinearity that gives its activations.
        inputs: the sites of the layer's inputs, in the order of `layer.inputs`.
        moments: mean and covariance of each of these.
    """

    covariance: Covariance | None = None
    tokens: Tensor | None = None
    layer: Nonlinearity | None = None
    inputs: tuple[Site, ...] = ()
    moments: tuple[Covariance, ...] = field(default_factory=tuple)


def fit_sites(
    adapter: Adapter,
    data: Any,
    sites: Any,
    kinds: set[str],
    *,
    options: DataOptions,
    seed: int = 0,
) -> dict[str, Fit]:
    """What `kinds` need to know of each site.

    Raises:
        DataError: for rotated units of a site that no nonlinearity is known to give.
    """
    covariances: dict[str, Covariance] = {}
    pools: dict[str, RandomTexts] = {}
    fits: dict[str, Fit] = {}
    wanted: set[str] = set()  # sites whose covariance is

    def receive(name: str, values: Activations) -> None:
        if name in wanted:
            covariances.setdefault(name, Covariance()).update(values)
        if kinds & _POOL and name in fits and values.rows is not None:
            flat = rearrange(values.values, "batch position ... -> batch position (...)")
            mask = values.mask if values.mask is not None else torch.ones(flat.shape[:2]).bool()
            pool = pools.setdefault(name, RandomTexts(POOLED_TEXTS, seed))
            counts = mask.any(dim=1)
            pool.update(flat[counts], mask[counts], values.rows[counts], values.rows[counts])

    captured: list[Site] = []
    with undisturbed(adapter.model):
        for batch in adapter.batches(data, options):
            if not captured:
                resolved = adapter.resolve(sites, batch)
                fits = {site.name: Fit() for site in resolved}
                if kinds & _LAYER:
                    fits = _layers(adapter, batch, resolved, options.seed)
                inputs = {site.name: site for fit in fits.values() for site in fit.inputs}
                wanted = set(inputs) | (set(fits) if kinds & _COVARIANCE else set())
                every = {site.name: site for site in resolved} | inputs
                captured = sorted(every.values(), key=lambda site: site.depth)
            adapter.run(batch, captured, receive, seed=options.seed)
    return {
        name: replace(
            fit,
            covariance=covariances.get(name) if kinds & _COVARIANCE else None,
            tokens=pools[name].stacked()[0] if name in pools else None,
            moments=tuple(covariances[site.name] for site in fit.inputs),
        )
        for name, fit in fits.items()
    }


def _layers(adapter: Adapter, batch: Batch, resolved: Sequence[Site], seed: int) -> dict[str, Fit]:
    """The nonlinearity of each site, by what the sites before it hold on one batch."""
    available = adapter.sites(batch)
    candidates = {site.name: _before(site, available) for site in resolved}
    every = {site.name: site for near in candidates.values() for site in near}
    every |= {site.name: site for site in resolved}
    held: dict[str, Tensor] = {}

    def receive(name: str, values: Activations) -> None:
        if name not in held and values.axes[:2] == ("batch", "position"):
            flat = rearrange(values.values, "batch position ... -> (batch position) (...)")
            mask = None if values.mask is None else values.mask
            if mask is not None and mask.dim() == 2:
                flat = flat[mask.flatten().to(flat.device)]
            held[name] = flat[:_PROOF_TOKENS].clone()

    captured = sorted(every.values(), key=lambda site: site.depth)
    adapter.run(batch, captured, receive, seed=seed)
    return {site.name: _fit(site, candidates[site.name], held) for site in resolved}


def _fit(site: Site, near: Sequence[Site], held: Mapping[str, Tensor]) -> Fit:
    before = {s.name: held[s.name] for s in near if s.name in held}
    layer = nonlinearity_of(held[site.name], before) if site.name in held else None
    if layer is None:
        raise DataError(
            f"rotated units need the input of the nonlinearity behind {site.name!r}, and none of "
            f"the {len(before)} sites before it gives its values by a function that is known; name "
            "the sites right behind a layer's nonlinearity, such as 'blocks.*.mlp.hook_post', or "
            "leave 'rotated' out"
        )
    return Fit(layer=layer, inputs=tuple(s for n in layer.inputs for s in near if s.name == n))


def _before(site: Site, available: Sequence[Site]) -> list[Site]:
    """The sites that fire before one and may be as wide, nearest first; each tensor once."""
    found: dict[str, Site] = {}
    for other in sorted(available, key=lambda s: -s.depth):
        fits = other.width is None or site.width is None or other.width == site.width
        same = other.name == site.name or (other.source and other.source == site.source)
        if other.depth <= site.depth and fits and not same:
            found.setdefault(other.source or other.name, other)
    return list(found.values())[:_NEAREST]
