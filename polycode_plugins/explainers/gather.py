"""From a model and texts to the records of units of several kinds: the pass, or two of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polycode_plugins.activations import Site
from polycode_plugins.adapters.base import Adapter, Batch, DataOptions
from polycode_plugins.errors import DataError, near
from polycode_plugins.explainers import units as make
from polycode_plugins.explainers.base import UnitRecords
from polycode_plugins.explainers.collect import Signs, UnitsOf, run_pass
from polycode_plugins.explainers.collected import Shape, records_of
from polycode_plugins.explainers.components import fit_components
from polycode_plugins.explainers.protocols import Protocol
from polycode_plugins.explainers.units import Units
from polycode_plugins.provenance import Rows

KINDS = ("neuron", "projection", "component", "independent")
_FITTED = frozenset({"component", "independent"})


@dataclass(frozen=True)
class GatheredSite:
    """The units of one site, and the records and shape of each (of each sign, where both)."""

    site: Site
    units: Sequence[Units]
    records: Sequence[tuple[UnitRecords, Shape]]


def gather(
    adapter: Adapter,
    texts: Any,
    sites: Sequence[str] | str | None,
    kinds: Sequence[str | Units],
    n_units: int | Sequence[int],
    *,
    protocol: Protocol,
    signs: Signs,
    options: DataOptions,
    seed: int = 0,
    tokenizer: Any = None,
    progress: bool | None = None,
) -> tuple[list[GatheredSite], Rows]:
    """The records of units of several kinds at every site, and which rows of the data were read.

    Components take a pass of their own first, over the same texts.

    Args:
        kinds: out of `KINDS`, and directions of one's own.
        n_units: of each kind at each site, or the neurons' numbers where neurons are all there is.

    Raises:
        DataError: see `run_pass` and `records_of`.
    """
    fitted: Mapping[str, Sequence[Units]] = {}
    names = {k for k in kinds if isinstance(k, str)}
    count = n_units if isinstance(n_units, int) else len(n_units)
    if names & _FITTED:
        fitted = fit_components(
            adapter, texts, sites, names & _FITTED, count, options=options, seed=seed
        )

    def units_of(site: Site, width: int) -> list[Units]:
        made: list[Units] = []
        for kind in kinds:
            if isinstance(kind, Units):
                made.append(kind)
            elif kind == "neuron":
                made.append(make.neurons(width, n_units, seed=seed))
            elif kind == "projection":
                made.append(make.projections(width, count, seed=seed))
            else:
                made += [u for u in fitted[site.name] if u.kind == kind]
        return made

    watch = _Watch(progress)
    collectors, kept, strings = run_pass(
        adapter,
        texts,
        sites,
        _checked(units_of),
        options=options,
        n_top=protocol.n_top,
        signs=signs,
        seed=seed,
        tokenizer=tokenizer,
        watch=watch,
    )
    found = [
        GatheredSite(
            c.site, c.units, list(records_of(c, kept, strings, protocol, signs=signs, seed=seed))
        )
        for c in collectors
    ]
    return found, watch.rows


def check_kinds(units: Sequence[str | Units] | str | Units) -> list[str | Units]:
    """The kinds asked for, as a list.

    Raises:
        DataError: for an unknown kind, none, or one twice.
    """
    kinds = [units] if isinstance(units, str | Units) else list(units)
    for kind in kinds:
        if isinstance(kind, str) and kind not in KINDS:
            raise DataError(
                f"there is no kind of units called {kind!r}{near(kind, KINDS)} "
                f"(known: {', '.join(KINDS)})"
            )
    labels = [k if isinstance(k, str) else k.kind for k in kinds]
    if not kinds or len(set(labels)) < len(labels):
        raise DataError(
            "units names no kind, or one kind twice; give directions of your own a kind= of their "
            "own"
        )
    return kinds


def _checked(units_of: UnitsOf) -> UnitsOf:
    """Names are unique within a site, over all its kinds."""

    def checked(site: Site, width: int) -> Sequence[Units]:
        made = units_of(site, width)
        names = [name for units in made for name in units.names]
        if len(set(names)) < len(names):
            raise DataError("two units of one site have one name; give directions other names")
        return made

    return checked


class _Watch:
    """Sees the batches go by: shows progress, keeps what was read."""

    def __init__(self, progress: bool | None) -> None:
        self.rows = Rows()
        self._show = sys.stderr.isatty() if progress is None else progress

    def __call__(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        from tqdm import tqdm

        with tqdm(desc="reading", unit="row", disable=not self._show, file=sys.stderr) as bar:
            for batch in batches:
                yield batch
                self.rows = self.rows.extended(batch.rows, batch.inputs)
                bar.update(len(batch))
