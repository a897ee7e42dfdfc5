"""From a model and texts to the records of units of several kinds: the pass, or two of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from polycode_plugins.activations import Site
from polycode_plugins.adapters.base import Adapter, Batch
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import DataError, near
from polycode_plugins.explainers.base import UnitRecords
from polycode_plugins.explainers.records import autoencoders
from polycode_plugins.explainers.records.component_fit import fit_components
from polycode_plugins.explainers.records.one_pass import Signs, UnitsOf, run_pass
from polycode_plugins.explainers.records.protocols import Protocol
from polycode_plugins.explainers.records.unit_records import Shape, records_of
from polycode_plugins.explainers.units.autoencoder.features import Features
from polycode_plugins.explainers.units.base import Units
from polycode_plugins.explainers.units.drawing import draw
from polycode_plugins.explainers.units.neurons import neurons
from polycode_plugins.explainers.units.projections import (
    DISTRIBUTIONS,
    Distribution,
    projections,
)
from polycode_plugins.files.provenance import Rows

KINDS = ("neuron", "projection", "component", "independent")
_FITTED = frozenset({"component", "independent"})
_AT_MOST_WIDTH = frozenset({"neuron", *_FITTED})  # of which a site has as many as it is wide


@dataclass(frozen=True)
class GatheredSite:
    """The units of one site, and the records and shape of each (of each sign, where both).

    Attributes:
        doubts: sentences on what would make their numbers wrong.
    """

    site: Site
    units: Sequence[Units]
    records: Sequence[tuple[UnitRecords, Shape]]
    doubts: Sequence[str] = ()


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
        kinds: out of `KINDS` (see `check_kinds`), and directions of one's own; features of an
            autoencoder are read at its own site alone, which is also what is read when `sites` is
            None.
        n_units: of each kind at each site, see `budget`; or the units' numbers where one kind is
            all there is.

    Raises:
        DataError: see `run_pass` and `records_of`.
    """
    sites, homes = autoencoders.homes(adapter, texts, options, kinds, sites)
    fitted: Mapping[str, Sequence[Units]] = {}
    names = {k for k in kinds if isinstance(k, str)}
    count = n_units if isinstance(n_units, int) else len(n_units)
    if names & _FITTED:
        fitted = fit_components(
            adapter, texts, sites, names & _FITTED, count, options=options, seed=seed
        )

    def units_of(site: Site, width: int) -> list[Units]:
        made: list[Units] = []
        for at, kind in enumerate(kinds):
            if isinstance(kind, Units):
                if at not in homes or site.source == homes[at].source:
                    n = budget(kinds, count, width)
                    made.append(draw(kind, n if isinstance(n_units, int) else n_units, seed))
                continue
            base, _, drawn = kind.partition(":")
            if base == "neuron":
                made.append(neurons(width, n_units, seed=seed))
            elif base == "projection":
                n, distribution = budget(kinds, count, width), cast(Distribution, drawn)
                made.append(
                    projections(width, n, seed=seed, distribution=distribution or "gaussian")
                )
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
    found = []
    for c in collectors:
        units, doubts = autoencoders.reconstructed(c)
        records = list(records_of(c, kept, strings, protocol, signs=signs, seed=seed))
        found.append(GatheredSite(c.site, units, records, doubts))
    return found, watch.rows


def budget(kinds: Sequence[str | Units], n: int, width: int) -> int:
    """How many units of each kind a site gives: as many of each as there are of the rarest.

    A site has as many neurons, and as many components, as it is wide.
    """
    limited = any(k in _AT_MOST_WIDTH for k in kinds if isinstance(k, str))
    return min(n, width) if limited else n


def fewer(gathered: Sequence[GatheredSite], kinds: Sequence[str | Units], n: int) -> list[str]:
    """A sentence for each number of units that sites gave in place of `n`."""
    capped: dict[int, list[str]] = {}
    for at in gathered:
        width = at.units[0].width
        if budget(kinds, n, width) < n:
            capped.setdefault(width, []).append(at.site.name)
    said = []
    for units in (k for k in kinds if isinstance(k, Units)):
        taken = max(
            (len(u) for at in gathered for u in at.units if u.kind == units.kind), default=0
        )
        if taken < len(units):
            said.append(
                f"{taken:,} of the {len(units):,} {units.kind} units at hand were drawn at random; "
                "a larger n_units takes more"
            )
    for width, sites in capped.items():
        where = sites[0] if len(sites) == 1 else f"{len(sites)} sites ({sites[0]} to {sites[-1]})"
        said.append(
            f"{n:,} units of each kind were asked for, and {where} "
            f"{'has' if len(sites) == 1 else 'have'} {width:,} neurons: there {width:,} of each "
            "are compared"
        )
    return list(dict.fromkeys(said))


def check_kinds(units: Sequence[str | Units] | str | Units) -> list[str | Units]:
    """The kinds asked for, as a list.

    "projection:sphere" is the kind "projection", drawn from that distribution.

    Raises:
        DataError: for an unknown kind or distribution, no kind, or one twice.
    """
    kinds = [units] if isinstance(units, str | Units) else list(units)
    for kind in kinds:
        if isinstance(kind, str):
            _check_name(kind)
    # Autoencoders of several sites share a kind; which site each reads is known with the model.
    features = list(dict.fromkeys(k.kind for k in kinds if isinstance(k, Features)))
    others = [k for k in kinds if not isinstance(k, Features)]
    labels = [k.partition(":")[0] if isinstance(k, str) else k.kind for k in others] + features
    if not kinds or len(set(labels)) < len(labels):
        raise DataError(
            "units names no kind, or one kind twice; give directions of your own a kind= of their "
            "own, and each distribution of projections a comparison of its own"
        )
    return kinds


def _check_name(kind: str) -> None:
    base, colon, distribution = kind.partition(":")
    if base not in KINDS:
        raise DataError(
            f"there is no kind of units called {base!r}{near(base, KINDS)} "
            f"(known: {', '.join(KINDS)})"
        )
    if colon and base != "projection":
        raise DataError(f"{kind!r} is no kind of units: a distribution is of projections alone")
    if colon and distribution not in DISTRIBUTIONS:
        raise DataError(
            f"projections have no distribution {distribution!r}{near(distribution, DISTRIBUTIONS)} "
            f"(known: {', '.join(DISTRIBUTIONS)})"
        )


def _checked(units_of: UnitsOf) -> UnitsOf:
    """Names are unique within a site, over all its kinds."""

    def checked(site: Site, width: int) -> Sequence[Units]:
        made = units_of(site, width)
        if not made:
            raise DataError(
                f"no unit reads at {site.name!r}: leave that site out, or add units that do"
            )
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
