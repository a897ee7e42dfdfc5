"""What a pass has left, and the records of each unit out of it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.base import LEVELS, Record, UnitRecords
from polycode_plugins.explainers.records.one_pass import Signs, SiteCollector, Texts
from polycode_plugins.explainers.records.protocols import Protocol, split
from polycode_plugins.explainers.records.token_strings import TokenStrings
from polycode_plugins.explainers.records.top_texts import TopTexts, maxima_of, rows_of
from polycode_plugins.explainers.units.base import Units

_UNITS_AT_ONCE = 64


@dataclass(frozen=True)
class Shape:
    """How a unit's activations are distributed, on the random texts of the pass.

    Attributes:
        kurtosis: fourth standardised moment (3 for a Gaussian); None for a constant unit.
        sparsity: share of tokens on which the unit is at level 0 of 10, see `levels_of`.
        mean, sd: of the activations.
        n_tokens: tokens these are taken from.
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
    shown = _Shown(texts, strings)
    for units, tops in zip(collector.units, collector.tops, strict=True):
        ranked = {sign: top.ranked() for sign, top in tops.items()}
        for start in range(0, len(units), _UNITS_AT_ONCE):
            chunk = list(range(start, min(start + _UNITS_AT_ONCE, len(units))))
            read = units.select(chunk).project(pooled).cpu().numpy()
            for column, i in enumerate(chunk):
                maker = _Maker(collector, shown, protocol, units, i, read[:, column], lengths, seed)
                maker.both = signs == "both"
                made = {s: maker.make(s, tops[s], ranked[s][i]) for s in tops}
                for sign in _chosen(made, signs):
                    yield made[sign], shape_of(sign * read[:, column], made[sign].maximum)


def shape_of(activations: NDArray[np.float32], maximum: float) -> Shape:
    """The moments of a unit's activations [tokens] and its sparsity on the 0-10 scale."""
    values = activations.astype(np.float64)
    mean, sd = float(values.mean()), float(values.std())
    kurtosis = float((((values - mean) / sd) ** 4).mean()) if sd > 0 else None
    sparsity = float((values * LEVELS < maximum).mean()) if maximum > 0 else 1.0
    return Shape(kurtosis, sparsity, mean, sd, len(values))


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


class _Maker:
    """The records of one unit."""

    def __init__(
        self,
        collector: SiteCollector,
        shown: _Shown,
        protocol: Protocol,
        units: Units,
        unit: int,
        pooled: NDArray[np.float32],
        lengths: list[int],
        seed: int,
    ) -> None:
        self.collector, self.shown = collector, shown
        self.protocol, self.units, self.unit = protocol, units, unit
        self.pooled = np.split(pooled, np.cumsum(lengths)[:-1])
        self.both = False
        self.rng_seed = [seed, zlib.crc32(units.names[unit].encode())]

    def make(self, sign: int, top: TopTexts, order: Tensor) -> UnitRecords:
        name = self.units.names[self.unit]
        if self.both and sign < 0:
            name = f"{name} (-)"
        kept = torch.isfinite(maxima_of(top.ranks[self.unit, order]))
        keep = order[kept][: self.protocol.n_top]
        if len(keep) < self.protocol.n_top:
            raise DataError(
                f"the texts hold {len(keep)} documents, and the protocol {self.protocol.name!r} "
                f"needs {self.protocol.n_top} top and {self.protocol.n_random} random ones; give "
                "more documents, or cut long ones into several"
            )
        rows = rows_of(top.ranks[self.unit, keep]).tolist()
        documents = top.documents[self.unit, keep]
        held = sign * top.activations[self.unit, keep].cpu()
        tops = []
        for place, (row, document) in enumerate(zip(rows, documents.tolist(), strict=True)):
            tokens, mask = self.shown[row]
            values = held[place, : len(mask)][mask].numpy()
            tops.append(Record(tokens, values, name, document, row))
        random, quantile = self._others(sign, name, {r.document for r in tops})
        return split(
            name,
            self.collector.site.name,
            self.units.kind,
            sign,
            self.protocol,
            top=tops,
            random=random,
            quantile=quantile,
        )

    def _others(self, sign: int, name: str, taken: set[int]) -> tuple[list[Record], list[Record]]:
        """Random records, and one record at each quantile of the maxima, of documents not taken."""
        pool, rng = self.collector.pool, np.random.default_rng(self.rng_seed)
        free = [i for i, document in enumerate(pool.documents) if document not in taken]
        drawn = [free[i] for i in rng.permutation(len(free))]
        random, rest = drawn[: self.protocol.n_random], drawn[self.protocol.n_random :]
        n = self.protocol.n_quantile
        rest.sort(key=lambda i: float((sign * self.pooled[i]).max()))
        parts = np.array_split(np.asarray(rest, dtype=np.int64), n) if n else []
        chosen = [int(part[rng.integers(len(part))]) for part in parts if len(part)]
        return (
            [self._record(i, sign, name) for i in random],
            [self._record(i, sign, name) for i in chosen],
        )

    def _record(self, i: int, sign: int, name: str) -> Record:
        pool = self.collector.pool
        tokens, _ = self.shown[pool.rows[i]]
        values = (sign * self.pooled[i]).astype(np.float32)
        return Record(tokens, values, name, pool.documents[i], pool.rows[i])
