"""From a model and texts to the records of units of several kinds: the pass, or two of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor

from polycode_plugins.activations import Site
from polycode_plugins.adapters.base import Adapter, Batch
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import DataError, near
from polycode_plugins.explainers.base import UnitRecords
from polycode_plugins.explainers.records import autoencoders
from polycode_plugins.explainers.records.fits import FITTED, Fit, fit_sites
from polycode_plugins.explainers.records.one_pass import Derived, Signs, UnitsOf, run_pass
from polycode_plugins.explainers.records.protocols import Protocol
from polycode_plugins.explainers.records.unit_records import Shape, records_of
from polycode_plugins.explainers.units.autoencoder.features import Features
from polycode_plugins.explainers.units.base import Units
from polycode_plugins.explainers.units.components import independent, principal
from polycode_plugins.explainers.units.covariances import (
    COLOURINGS,
    Colouring,
    covariance_directions,
)
from polycode_plugins.explainers.units.drawing import draw
from polycode_plugins.explainers.units.matches import matches
from polycode_plugins.explainers.units.neurons import neurons
from polycode_plugins.explainers.units.projections import (
    DISTRIBUTIONS,
    Distribution,
    projections,
)
from polycode_plugins.explainers.units.rotations import Rotations, rotations
from polycode_plugins.files.provenance import Rows
from polycode_plugins.progress import bar

KINDS = (
    "neuron", "projection", "rotated", "matched", "covariance", "component", "independent",
)  # fmt: skip
#: Top texts that are kept beyond those that are needed, in place of near copies.
SPARE = 5
#: Of which a site has as many as it is wide.
_AT_MOST_WIDTH = frozenset({"neuron", "rotated", "matched", "component", "independent"})
#: What may stand behind a kind and a colon.
_VARIANTS = {"projection": ("distribution", DISTRIBUTIONS), "covariance": ("colouring", COLOURINGS)}


@dataclass(frozen=True)
class GatheredSite:
    """The units of one site, and the records and shape of each (of each sign, where both).

    Attributes:
        width: features of the site.
        notes: what was asked for and is not among the units, in sentences.
        doubts: sentences on what would make their numbers wrong.
    """

    site: Site
    width: int
    units: Sequence[Units]
    records: Sequence[tuple[UnitRecords, Shape]]
    notes: Sequence[str] = ()
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

    Kinds that are made by what a site's activations are like take a pass of their own first, over
    the same texts.

    Args:
        kinds: out of `KINDS` (see `check_kinds`), and directions of one's own; features of an
            autoencoder are read at its own site alone, which is also what is read when `sites` is
            None.
        n_units: of each kind at each site, see `budget`; or the units' numbers where one kind is
            all there is.

    Raises:
        DataError: see `fit_sites`, `run_pass` and `records_of`.
    """
    sites, homes = autoencoders.homes(adapter, texts, options, kinds, sites)
    fits: Mapping[str, Fit] = {}
    names = {k.partition(":")[0] for k in kinds if isinstance(k, str)}
    if names & FITTED:
        fits = fit_sites(adapter, texts, sites, names & FITTED, options=options, seed=seed)
    maker = _Maker(kinds, n_units, fits, signs, seed, homes)
    watch = _Watch(progress, options.limit)
    collectors, kept, strings = run_pass(
        adapter,
        texts,
        sites,
        _checked(maker.units_of),
        derived=maker.derived() if "rotated" in names else {},
        options=options,
        n_top=protocol.n_top + SPARE,
        signs=signs,
        seed=seed,
        tokenizer=tokenizer,
        watch=watch,
    )
    found: dict[str, GatheredSite] = {}
    for c in collectors:
        made = list(records_of(c, kept, strings, protocol, signs=signs, seed=seed))
        before = found.get(c.site.name)
        if before is None:
            units, doubts = autoencoders.reconstructed(c)
            notes = maker.notes(c.site.name)
            found[c.site.name] = GatheredSite(c.site, c.width, units, made, notes, doubts)
        else:
            units = [maker.described(c.site.name, of) for of in c.units]
            found[c.site.name] = replace(
                before, units=[*before.units, *units], records=[*before.records, *made]
            )
    return [maker.ordered(at) for at in found.values()], watch.rows


class _Maker:
    """Makes the units of each site, in the order of kinds."""

    def __init__(
        self,
        kinds: Sequence[str | Units],
        n_units: int | Sequence[int],
        fits: Mapping[str, Fit],
        signs: Signs,
        seed: int,
        homes: Mapping[int, Site],
    ) -> None:
        self._homes = homes
        self._kinds, self._n_units, self._seed = kinds, n_units, seed
        self._count = n_units if isinstance(n_units, int) else len(n_units)
        self._fits, self._signed = fits, signs != "positive"
        self._rotations: dict[str, Rotations] = {}
        self._notes: dict[str, list[str]] = {}

    def units_of(self, site: Site, width: int) -> list[Units]:
        """All kinds but those that read elsewhere."""
        made: list[Units] = []
        for at, kind in enumerate(self._kinds):
            if isinstance(kind, str):
                made += self._of(*kind.partition(":")[::2], site, width)
            elif at not in self._homes or site.source == self._homes[at].source:
                n = budget(self._kinds, self._count, width)
                drawn = n if isinstance(self._n_units, int) else self._n_units
                made.append(draw(kind, drawn, self._seed))
        return made

    def _of(self, kind: str, variant: str, site: Site, width: int) -> list[Units]:
        seed, count = self._seed, self._count
        fit = self._fits.get(site.name, Fit())
        if kind == "neuron":
            return [neurons(width, self._n_units, seed=seed)]
        if kind == "projection":
            n, drawn = budget(self._kinds, count, width), cast(Distribution, variant or "gaussian")
            return [projections(width, n, seed=seed, distribution=drawn)]
        if kind == "component" and fit.covariance is not None:
            return [principal(fit.covariance, count)]
        if kind == "covariance" and fit.covariance is not None:
            n, of = budget(self._kinds, count, width), cast(Colouring, variant or "coloured")
            return [covariance_directions(fit.covariance, n, seed=seed, colouring=of)]
        if kind == "independent" and fit.tokens is not None:
            return [independent(fit.tokens, count, seed=seed)]
        if kind == "matched" and fit.tokens is not None:
            return self._matched(fit.tokens, site, width)
        return []  # rotated units are derived

    def _matched(self, tokens: Tensor, site: Site, width: int) -> list[Units]:
        wanted = neurons(width, self._n_units, seed=self._seed)
        made = matches(tokens, wanted, site.name, seed=self._seed, signed=self._signed)
        have = 0 if made is None else len(made)
        if have < len(wanted):
            self._notes.setdefault(site.name, []).append(
                f"{len(wanted) - have} of {len(wanted)} neurons of {site.name} have no match: no "
                "random direction that was tried is as heavy-tailed and as sparse"
            )
        return [] if made is None else [made]

    def derived(self) -> dict[str, Derived]:
        """The rotated units of each site, which read the inputs of its nonlinearity."""
        made = {}
        for name, fit in self._fits.items():
            assert fit.layer is not None
            wanted = neurons(fit.moments[0].width or 0, self._n_units, seed=self._seed)
            rotated = rotations(fit.layer, fit.moments, wanted, name, seed=self._seed)
            self._rotations[name] = rotated
            made[name] = Derived(fit.inputs, rotated.read, rotated.index())
        return made

    def described(self, site: str, units: Units) -> Units:
        """As they are to be kept with results."""
        return self._rotations[site].described() if units.kind == "rotated" else units

    def notes(self, site: str) -> list[str]:
        """What was asked for and is not among a site's units."""
        return self._notes.get(site, [])

    def ordered(self, at: GatheredSite) -> GatheredSite:
        """With its kinds in the order in which they were asked for."""
        labels = [label_of(kind) for kind in self._kinds]

        def place(kind: str) -> int:
            return labels.index(kind)

        return replace(
            at,
            units=sorted(at.units, key=lambda units: place(units.kind)),
            records=sorted(at.records, key=lambda made: place(made[0].kind)),
        )


def label_of(kind: str | Units) -> str:
    """What units of a kind are called."""
    return kind.partition(":")[0] if isinstance(kind, str) else kind.kind


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
        if budget(kinds, n, at.width) < n:
            capped.setdefault(at.width, []).append(at.site.name)
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

    "projection:sphere" is the kind "projection", drawn from that distribution, and
    "covariance:whitened" the kind "covariance" of that colouring.

    Raises:
        DataError: for an unknown kind or variant, no kind, or one twice.
    """
    kinds = [units] if isinstance(units, str | Units) else list(units)
    for kind in kinds:
        if isinstance(kind, str):
            _check_name(kind)
    # Autoencoders of several sites share a kind; which site each reads is known with the model.
    features = list(dict.fromkeys(k.kind for k in kinds if isinstance(k, Features)))
    labels = [label_of(k) for k in kinds if not isinstance(k, Features)] + features
    if not kinds or len(set(labels)) < len(labels):
        raise DataError(
            "units names no kind, or one kind twice; give directions of your own a kind= of their "
            "own, and each distribution of projections a comparison of its own"
        )
    return kinds


def _check_name(kind: str) -> None:
    base, colon, variant = kind.partition(":")
    if base not in KINDS:
        raise DataError(
            f"there is no kind of units called {base!r}{near(base, KINDS)} "
            f"(known: {', '.join(KINDS)})"
        )
    if not colon:
        return
    if base not in _VARIANTS:
        known = "; ".join(f"{k} by {what}" for k, (what, _) in _VARIANTS.items())
        raise DataError(f"{kind!r} is no kind of units; kinds with variants are {known}")
    what, variants = _VARIANTS[base]
    if variant not in variants:
        raise DataError(
            f"{base} units have no {what} {variant!r}{near(variant, variants)} "
            f"(known: {', '.join(variants)})"
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

    def __init__(self, progress: bool | None, total: int | None) -> None:
        self._total = total
        self.rows = Rows()
        self._progress = progress

    def __call__(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        with bar("reading", "row", self._total, self._progress, most=True) as shown:
            for batch in batches:
                yield batch
                self.rows = self.rows.extended(batch.rows, batch.inputs)
                shown.update(len(batch))
