"""Autoencoders in the pass: the site of each, and whether it is of what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from polycode_plugins.activations import Site
from polycode_plugins.adapters.base import Adapter
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import DataError
from polycode_plugins.explainers.records.one_pass import SiteCollector
from polycode_plugins.explainers.units.autoencoder.features import Features
from polycode_plugins.explainers.units.autoencoder.sites import site_of
from polycode_plugins.explainers.units.base import Units

#: Share of a site's variance below which an autoencoder is not taken to be of that site.
FITS = 0.5
_TOKENS = 2048  # that this is looked at on


def homes(
    adapter: Adapter,
    data: Any,
    options: DataOptions,
    kinds: Sequence[str | Units],
    sites: Sequence[str] | str | None,
) -> tuple[Sequence[str] | str | None, dict[int, Site]]:
    """The sites to read, and for each autoencoder, by its place in `kinds`, the one it reads.

    Raises:
        DataError: where an autoencoder's site is not known, or not among those asked for.
    """
    own = {i: k for i, k in enumerate(kinds) if isinstance(k, Features)}
    if not own:
        return sites, {}
    names = {i: site_of(features, adapter) for i, features in own.items()}
    if sites is None:
        sites = list(dict.fromkeys(names.values()))
    # As the pass resolves them: with a batch, which tells two calls of a module apart.
    example = next(iter(adapter.batches(data, options)), None)
    asked = {site.source for site in adapter.resolve(sites, example)}
    found = {i: adapter.resolve(name, example)[0] for i, name in names.items()}
    for i, home in found.items():
        if home.source not in asked:
            raise DataError(
                f"the autoencoder {own[i].origin.get('folder', own[i].kind)!r} reads "
                f"{home.name!r}, which is not among the sites asked for; add it, or leave the "
                "sites out"
            )
    read = [(own[i].kind, home.source) for i, home in found.items()]
    if len(set(read)) < len(read):
        raise DataError(
            "two autoencoders read one site; give each a kind= of its own in Python, or compare "
            "one at a time"
        )
    return sites, found


def reconstructed(collector: SiteCollector) -> tuple[list[Units], list[str]]:
    """The units of a site, with how much of its variance an autoencoder explains; and doubts."""
    units, doubts = [], []
    for group in collector.units:
        if isinstance(group, Features) and group.encoder is not None:
            pooled, _ = collector.pool.stacked()
            step = max(1, len(pooled) // _TOKENS)
            share = group.encoder.explained_variance(pooled[::step])
            origin = {**group.origin, "explained_variance": share}
            group = replace(group, origin=origin)
            if share is not None and share < FITS:
                doubts.append(_doubt(group, collector.site.name, share))
        units.append(group)
    return units, doubts


def _doubt(features: Features, site: str, share: float) -> str:
    """That an autoencoder does not fit the activations it is given, and why that may be."""
    origin = features.origin
    trained = [
        f"{what} {origin[name]!r}"
        for what, name in (
            ("model", "model_name"),
            ("site", "hook_name"),
            ("loaded with", "model_from_pretrained_kwargs"),
        )
        if origin.get(name)
    ]
    bos = origin.get("prepend_bos")
    trained += [] if bos is None else [f"{'with' if bos else 'without'} a beginning-of-text token"]
    much = f"{share:.0%}" if share > 0 else "none"
    return (
        f"the autoencoder {origin.get('folder', features.kind)!r} explains {much} of the "
        f"variance at {site}, so its features are not what they were trained to be: compare the "
        f"model, its loading and the texts with what it was trained on ({', '.join(trained)})"
    )
