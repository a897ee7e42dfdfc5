"""Components of a site, fitted in a pass of their own."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange

from polycode_plugins.activations import Activations
from polycode_plugins.adapters.base import Adapter
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.data_options import DataOptions
from polycode_plugins.explainers.records.random_texts import RandomTexts
from polycode_plugins.explainers.units.base import Units
from polycode_plugins.explainers.units.components import independent, principal
from polycode_plugins.metrics.accumulators import Covariance

#: Texts whose tokens independent components are fitted on.
ICA_TEXTS = 512


def fit_components(
    adapter: Adapter,
    data: Any,
    sites: Any,
    kinds: set[str],
    n: int,
    *,
    options: DataOptions,
    seed: int = 0,
) -> dict[str, list[Units]]:
    """The components of each site, found in a pass of their own.

    Args:
        kinds: "component", "independent" or both.
        n: how many of each.
    """
    covariances: dict[str, Covariance] = {}
    pools: dict[str, RandomTexts] = {}

    def receive(site: str, values: Activations) -> None:
        covariances.setdefault(site, Covariance()).update(values)
        if "independent" in kinds and values.rows is not None:
            flat = rearrange(values.values, "batch position ... -> batch position (...)")
            mask = values.mask if values.mask is not None else torch.ones(flat.shape[:2]).bool()
            pool = pools.setdefault(site, RandomTexts(ICA_TEXTS, seed))
            counts = mask.any(dim=1)
            pool.update(flat[counts], mask[counts], values.rows[counts], values.rows[counts])

    resolved = None
    with undisturbed(adapter.model):
        for batch in adapter.batches(data, options):
            resolved = resolved or adapter.resolve(sites, batch)
            adapter.run(batch, resolved, receive, seed=options.seed)
    made: dict[str, list[Units]] = {}
    for site, covariance in covariances.items():
        made[site] = [principal(covariance, n)] if "component" in kinds else []
        if site in pools:
            made[site].append(independent(pools[site].stacked()[0], n, seed=seed))
    return made
