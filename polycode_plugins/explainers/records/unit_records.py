"""What a pass has left, and the records of each unit out of it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.base import (
    FIRES,
    LEVELS,
    Record,
    RecordSet,
    UnitRecords,
    levels_of,
)
from polycode_plugins.explainers.records.moments import UnitMoments
from polycode_plugins.explainers.records.near_copies import NearCopies
from polycode_plugins.explainers.records.one_pass import Signs, SiteCollector, Texts
from polycode_plugins.explainers.records.protocols import Protocol, parted
from polycode_plugins.explainers.records.token_strings import TokenStrings
from polycode_plugins.explainers.records.top_texts import TopTexts, maxima_of, rows_of
from polycode_plugins.explainers.units.base import Units

_UNITS_AT_ONCE = 64


@dataclass(frozen=True)
class Shape:
    """How a unit's activations are distributed over the texts.

    Attributes:
        kurtosis: fourth standardised moment (3 for a Gaussian); None for a constant unit.
        sparsity: share of the tokens of random texts on which the unit is at level 0 of 10, see
            `levels_of`.
        mean, sd: of the activations.
        n_tokens: tokens that all but the sparsity are taken from: every one that was read.
    """

    kurtosis: float | None
    sparsity: float
    mean: float
    sd: float
    n_tokens: int


def records_of(
    collector: SiteCollector,
    texts: Texts,
    strings: TokenStrings,
    protocol: Protocol,
    *,
    signs: Signs = "fixed",
    seed: int = 0,
) -> Iterator[tuple[UnitRecords, Shape]]:
    """The records of every unit of a site, split by a protocol, and the unit's shape.

    Of one unit every record is of another document. Random records are drawn for each unit anew
    out of the site's random texts. With `signs="fixed"` the sign is the one whose explaining top
    records have the higher mean maximum; scoring records have no say.

    Raises:
        DataError: where the texts hold too few documents.
    """
    pooled, lengths = collector.pool.stacked()
    pool = _Pool(collector.pool.rows, collector.pool.documents, np.cumsum([0, *lengths]).tolist())
    shown = _Shown(texts, strings)
    groups = zip(collector.units, collector.tops, collector.moments, strict=True)
    for units, tops, moments in groups:
        ranked = {sign: top.ranked() for sign, top in tops.items()}
        for start in range(0, len(units), _UNITS_AT_ONCE):
            chunk = list(range(start, min(start + _UNITS_AT_ONCE, len(units))))
            read = units.select(chunk).project(pooled).cpu().numpy()
            for column, i in enumerate(chunk):
                maker = _Maker(collector, pool, shown, protocol, units, i, read[:, column], seed)
                maker.both = signs == "both"
                made = {s: maker.make(s, tops[s], ranked[s][i]) for s in tops}
                for sign in _chosen(made, signs):
                    values, of = sign * read[:, column], moments.of(i, sign)
                    yield made[sign], shape_of(values, made[sign].maximum, of)


def shape_of(
    activations: NDArray[np.float32], maximum: float, moments: UnitMoments | None = None
) -> Shape:
    """The moments of a unit and its sparsity on the 0-10 scale.

    Args:
        activations: [tokens], what the sparsity is taken from.
        maximum: of the scale.
        moments: over all that was read; those of `activations` where there is no more.
    """
    values = activations.astype(np.float64)
    sparsity = float((values * LEVELS < maximum).mean()) if maximum > 0 else 1.0
    if moments is None:
        mean, sd = float(values.mean()), float(values.std())
        kurtosis = float((((values - mean) / sd) ** 4).mean()) if sd > 0 else None
        moments = UnitMoments(mean, sd, kurtosis, len(values))
    return Shape(moments.kurtosis, sparsity, moments.mean, moments.sd, moments.n_tokens)


def _chosen(made: dict[int, UnitRecords], signs: Signs) -> list[int]:
    if signs != "fixed" or len(made) == 1:
        return list(made)

    def height(sign: int) -> float:
        return float(np.mean([r.activations.max() for r in made[sign].explain.top]))

    return [1 if height(1) >= height(-1) else -1]


class _Shown:
    """The tokens of a text as strings, and the mask of those that count; each made once."""

    def __init__(self, texts: Texts, strings: TokenStrings) -> None:
        self._texts, self._strings = texts, strings
        self._made: dict[int, tuple[tuple[str, ...], Tensor]] = {}

    def __getitem__(self, row: int) -> tuple[tuple[str, ...], Tensor]:
        if row not in self._made:
            ids, mask = self._texts[row]
            self._made[row] = self._strings(ids), mask
        return self._made[row]


@dataclass(frozen=True)
class _Pool:
    """The random texts of a site: their rows and documents, and where each begins and ends."""

    rows: list[int]
    documents: list[int]
    ends: list[int]


class _Maker:
    """The records of one unit."""

    def __init__(
        self,
        collector: SiteCollector,
        pool: _Pool,
        shown: _Shown,
        protocol: Protocol,
        units: Units,
        unit: int,
        pooled: NDArray[np.float32],
        seed: int,
    ) -> None:
        self.collector, self.pool, self.shown = collector, pool, shown
        self.protocol, self.units, self.unit = protocol, units, unit
        self.pooled = pooled
        self.both = False
        self.rng_seed = [seed, zlib.crc32(units.names[unit].encode())]

    def make(self, sign: int, top: TopTexts, order: Tensor) -> UnitRecords:
        name = self.units.names[self.unit]
        if self.both and sign < 0:
            name = f"{name} (-)"
        kept = torch.isfinite(maxima_of(top.ranks[self.unit, order]))
        keep = order[kept]
        if len(keep) < self.protocol.n_top:
            raise DataError(
                f"the texts hold {len(keep)} documents, and the protocol {self.protocol.name!r} "
                f"needs {self.protocol.n_top} top and {self.protocol.n_random} random ones; give "
                "more documents, or cut long ones into several"
            )
        seen = NearCopies()
        tops = seen.first(self._tops(sign, name, top, keep), self.protocol.n_top)
        random, quantile, negative = self._others(sign, name, tops, seen)
        unit = UnitRecords(
            name,
            self.collector.site.name,
            self.units.kind,
            sign,
            self.protocol.name,
            RecordSet(),
            RecordSet(),
            RecordSet(),
        )
        records = RecordSet(tuple(tops), tuple(random), tuple(quantile), tuple(negative))
        return parted(unit, self.protocol, records)

    def _tops(self, sign: int, name: str, top: TopTexts, keep: Tensor) -> Iterator[Record]:
        rows = rows_of(top.ranks[self.unit, keep]).tolist()
        documents = top.documents[self.unit, keep].tolist()
        held = sign * top.activations[self.unit, keep].cpu()
        for place, (row, document) in enumerate(zip(rows, documents, strict=True)):
            tokens, mask = self.shown[row]
            values = held[place, : len(mask)][mask].numpy()
            yield Record(tokens, values, name, document, row)

    def _others(
        self, sign: int, name: str, tops: Sequence[Record], seen: NearCopies
    ) -> tuple[list[Record], list[Record], list[Record]]:
        """Random records, one at each quantile of the maxima, and hard negatives.

        All of other documents than the top ones, and unlike them and each other.
        """
        documents, rng = self.pool.documents, np.random.default_rng(self.rng_seed)
        taken = {record.document for record in tops}
        free = [i for i, document in enumerate(documents) if document not in taken]
        order = [free[i] for i in rng.permutation(len(free))]
        wanted = self.protocol
        if len(order) < wanted.n_random:
            raise DataError(
                f"{name} of {self.collector.site.name!r} has {len(order)} random records of "
                f"different documents, and the protocol {wanted.name!r} needs {wanted.n_random}; "
                "give more or shorter documents"
            )
        random = seen.first((self._record(i, sign, name) for i in order), wanted.n_random)
        if not (wanted.n_negative or wanted.n_quantile):
            return random, [], []
        used = {record.document for record in random}
        rest = [self._record(i, sign, name) for i in order if documents[i] not in used]
        alike = self._lookalikes(tops, rest) if wanted.n_negative else []
        negative = seen.first(alike, wanted.n_negative)
        used |= {record.document for record in negative}
        rest = [r for r in rest if r.document not in used]
        rest.sort(key=lambda r: float(r.activations.max()))
        if len(rest) < wanted.n_quantile:
            raise DataError(
                f"{name} of {self.collector.site.name!r} has {len(rest)} records left by quantile, "
                f"and the protocol {wanted.name!r} needs {wanted.n_quantile}; give more documents"
            )
        cuts = np.array_split(np.arange(len(rest)), wanted.n_quantile) if wanted.n_quantile else []
        quantile = []
        for part in cuts:  # of each quantile the first in a random order that is no near copy
            quantile += seen.first((rest[i] for i in rng.permutation(part)), 1)
        return random, quantile, negative

    def _lookalikes(self, tops: Sequence[Record], others: Sequence[Record]) -> list[Record]:
        """Texts on which the unit does not fire, by the level that their tokens had in top ones.

        By the explaining texts alone: what is looked for is what an explanation might take for the
        unit's.
        """
        place = self.protocol.top[0]
        shown = tops[place :: self.protocol.top_stride] if place is not None else tops
        maximum = max((float(r.activations.max()) for r in shown), default=0.0)
        levels: dict[str, list[int]] = {}
        for record in shown:
            found = levels_of(record.activations, maximum).tolist()
            for token, level in zip(record.tokens, found, strict=True):
                levels.setdefault(token, []).append(level)
        mean = {token: float(np.mean(of)) for token, of in levels.items()}

        def likeness(record: Record) -> tuple[float, float]:
            expected = [mean.get(token, 0.0) for token in record.tokens]
            return -max(expected), -float(np.mean(expected))

        silent = [r for r in others if levels_of(r.activations, maximum).max() < FIRES]
        return sorted((r for r in silent if likeness(r)[0] < 0), key=likeness)

    def _record(self, i: int, sign: int, name: str) -> Record:
        pool = self.pool
        tokens, _ = self.shown[pool.rows[i]]
        values = (sign * self.pooled[pool.ends[i] : pool.ends[i + 1]]).astype(np.float32)
        return Record(tokens, values, name, pool.documents[i], pool.rows[i])
