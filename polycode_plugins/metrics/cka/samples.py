"""Samples that several sites kept, side by side, and which of them are independent.

Sites need not have kept the same ones: a map of low resolution, or a site that has one vector for a
whole text, gives fewer for each row. So sites are taken by classes that kept the same, and each two
classes are compared on what both have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from polycode_plugins.errors import DataError
from polycode_plugins.metrics.cka.alignment import (
    LEAST,
    LEAST_FOR_INTERVAL,
    Alignment,
    Floats,
    Integers,
    align,
    deal,
)
from polycode_plugins.metrics.reservoir import OWN_ROW, Reservoir, in_both

Unit = Literal["documents", "rows", "samples"]

#: Where so few of the samples make half of the variance, they rule the comparison.
RULING = 0.025


@dataclass(frozen=True)
class KeptSite:
    """What a site kept.

    Attributes:
        name: the site's.
        keys: int64 [samples, 2]: row of the data and the how-many-eth sample of it.
        places: int64 [samples], position in the row; None where sites of other resolution have the
            same sample at another one.
        documents: int64 [samples]. values: float32 [samples, width].
    """

    name: str
    keys: Integers
    places: Integers | None
    documents: Integers
    values: Tensor

    def lines(self, at: Integers) -> KeptSite:
        """Those samples alone."""
        places = None if self.places is None else self.places[at]
        values = self.values[torch.from_numpy(at)]
        return KeptSite(self.name, self.keys[at], places, self.documents[at], values)


@dataclass(frozen=True, eq=False)
class PairTable:
    """CKA of pairs of sites.

    Attributes:
        values, low, high, naive: float64 [sites, sites]: CKA, its 95% interval, CKA of the samples
            as they are. NaN where undefined.
        samples: int64 [sites, sites], used for the pair.
        groups: int64 [sites, sites], independent groups these were dealt into.
        worth: float64 [sites, sites], how many groups of one size these are worth.
        units: {unit: pairs}, what was taken for independent.
        apart: pairs whose samples are of different positions, so that they have no CKA.
        ruled: for each site, how many samples make half of the variance where these are at most
            `RULING` of all; else 0.
    """

    values: Floats
    low: Floats
    high: Floats
    naive: Floats
    samples: Integers
    groups: Integers
    worth: Floats
    units: NDArray[np.str_]
    apart: NDArray[np.bool_]
    ruled: list[int]


def kept_site(name: str, axes: Sequence[str], reservoir: Reservoir) -> KeptSite:
    """What a reservoir holds.

    Raises:
        DataError: where it holds nothing.
    """
    chosen, samples = reservoir.samples()
    documents = samples.documents.numpy()
    documents = np.where(documents == OWN_ROW, own_documents(chosen.row), documents)
    keys = np.stack([chosen.row, chosen.draw], axis=1)
    places = chosen.place if "position" in axes else None
    return KeptSite(name, keys, places, documents, samples.values)


def own_documents(rows: Integers) -> Integers:
    """Names for rows that are documents, which no document has."""
    return OWN_ROW - 1 - rows


def pair_table(sites: Sequence[KeptSite]) -> PairTable:
    """CKA of all pairs of sites.

    Raises:
        DataError: where samples are too few for any pair, or a site's do not vary.
    """
    count = len(sites)
    shape = (count, count)
    table = PairTable(
        values=np.full(shape, np.nan),
        low=np.full(shape, np.nan),
        high=np.full(shape, np.nan),
        naive=np.full(shape, np.nan),
        samples=np.zeros(shape, dtype=np.int64),
        groups=np.zeros(shape, dtype=np.int64),
        worth=np.zeros(shape),
        units=np.full(shape, "", dtype="U9"),
        apart=np.zeros(shape, dtype=bool),
        ruled=[_ruled(site.values) for site in sites],
    )
    classes = _classes(sites)
    for i, one in enumerate(classes):
        _fill(table, sites, one, one)
        for other in classes[i + 1 :]:
            _fill(table, sites, one, other)
    return table


def _classes(sites: Sequence[KeptSite]) -> list[list[int]]:
    """Indices of sites that kept the same samples."""
    found: dict[tuple[bytes, bytes], list[int]] = {}
    for index, site in enumerate(sites):
        places = b"" if site.places is None else site.places.tobytes()
        found.setdefault((site.keys.tobytes(), places), []).append(index)
    return list(found.values())


def _fill(table: PairTable, sites: Sequence[KeptSite], one: list[int], other: list[int]) -> None:
    """Enter the pairs of two classes, or of one."""
    held = [sites[i] for i in one]
    if one is not other:
        at, beside = in_both(sites[one[0]].keys, sites[other[0]].keys)
        pair = sites[one[0]].lines(at), sites[other[0]].lines(beside)
        places = [site.places for site in pair]
        if places[0] is not None and places[1] is not None and (places[0] != places[1]).any():
            table.apart[np.ix_(one, other)] = table.apart[np.ix_(other, one)] = True
            return
        held = [site.lines(at) for site in held] + [sites[i].lines(beside) for i in other]
    unit, groups = independent(held[0])
    found = align([site.values for site in held], groups)
    if one is other:
        _require_variance(held, found)
    low, high = interval(found, unit)
    own, rest = slice(0, len(one)), slice(len(one) if one is not other else 0, None)
    for name, values in (
        ("values", found.values), ("low", low), ("high", high), ("naive", found.naive),
    ):  # fmt: skip
        getattr(table, name)[np.ix_(one, other)] = values[own, rest]
        getattr(table, name)[np.ix_(other, one)] = values[own, rest].T
    for a, b in ((one, other), (other, one)):
        table.samples[np.ix_(a, b)] = found.n_samples
        table.groups[np.ix_(a, b)] = found.groups
        table.worth[np.ix_(a, b)] = found.worth
        table.units[np.ix_(a, b)] = unit


def independent(site: KeptSite) -> tuple[Unit, Integers]:
    """What is taken for independent, and the group of each sample, int64 [samples].

    Documents where they are enough for an estimate; else rows, else the samples themselves, which
    the result has to say.

    Raises:
        DataError: where even samples are too few.
    """
    units: list[tuple[Unit, Integers]] = [
        ("documents", site.documents),
        ("rows", site.keys[:, 0]),
        ("samples", np.arange(len(site.keys))),
    ]
    for unit, names in units:
        groups = deal(names)
        sizes = np.bincount(groups)
        if len(sizes) >= LEAST and len(names) ** 2 >= LEAST * float(np.square(sizes).sum()):
            return unit, groups
    raise DataError(
        f"{len(site.keys)} samples in common are too few for CKA, which needs {LEAST}; give more "
        "data"
    )


def interval(found: Alignment, unit: Unit) -> tuple[Floats, Floats]:
    """95% intervals [sites, sites] twice; NaN where the documents are too few for one."""
    if unit != "documents" or found.worth < LEAST_FOR_INTERVAL:
        return np.full_like(found.values, np.nan), np.full_like(found.values, np.nan)
    reach = stats.t.ppf(0.975, found.worth - 1) * found.errors
    return found.values - reach, found.values + reach


def _require_variance(held: Sequence[KeptSite], found: Alignment) -> None:
    """Raise DataError for sites without a CKA to themselves."""
    bad = [site for site, own in zip(held, np.diagonal(found.values), strict=True) if own != own]
    if not bad:
        return
    flat = bool((bad[0].values == bad[0].values[0]).all())
    said = (
        f"the activations are constant over {found.n_samples} samples, so they are like nothing; "
        "leave the site out"
        if flat
        else f"{found.n_samples} samples are too few to tell its variance from noise; give more"
    )
    more = f" (and more at {', '.join(site.name for site in bad[1:4])})" if bad[1:] else ""
    raise DataError(f"site {bad[0].name!r}: {said}{more}")


def _ruled(values: Tensor) -> int:
    """How many samples make half of the variance, where these are very few; else 0."""
    weights = (values.double() - values.double().mean(0)).square().sum(1).sort(descending=True)[0]
    if not float(weights.sum()) > 0:
        return 0
    half = int((weights.cumsum(0) < weights.sum() / 2).sum()) + 1
    return half if half <= RULING * len(values) else 0
