"""Protocols: how many records a unit needs, and which are for explaining and which for scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polycode_plugins.errors import DataError, near
from polycode_plugins.explainers.base import Record, RecordSet, UnitRecords


@dataclass(frozen=True)
class Protocol:
    """How the records of a unit are split.

    Attributes:
        name: recorded with every result.
        n_top: records of the highest maxima, a multiple of `top_stride`.
        n_random: records drawn at random, a multiple of `random_stride`; may be 0.
        n_quantile: records by quantile of the maxima, split like the random ones but with every
            third for explaining.
        top_stride: every top_stride-th of the ranking goes to one split.
        top: places within the stride of the (explain, calibration, score) split; None: no such.
        random_stride, random: the same for random records.
    """

    name: str
    n_top: int
    n_random: int
    n_quantile: int
    top_stride: int
    top: tuple[int, int | None, int]
    random_stride: int = 1
    random: tuple[int | None, int | None, int | None] = (None, None, None)

    @property
    def calibrated(self) -> bool:
        """Whether there is a calibration split."""
        return self.top[1] is not None


#: Top records explain, calibrate, validate, test at stride 4, random ones without explain at stride
#: 3; scored on 5 top and 5 random ones (OpenAI's neuron-explainer). The test parts stay unread.
OPENAI = Protocol("openai", 20, 15, 0, 4, (0, 1, 2), 3, (None, 0, 1))
#: The ten texts with the highest maxima: even ranks explain, odd ranks score; top-only
#: (Marshall & Kirchner 2024).
MARSHALL_KIRCHNER = Protocol("marshall-kirchner", 10, 0, 0, 2, (0, None, 1))
#: OpenAI's, and texts by quantile beside: a unit is shown and scored over all of its range.
QUANTILES = Protocol("quantiles", 20, 15, 15, 4, (0, 1, 2), 3, (None, 0, 1))
PROTOCOLS = {p.name: p for p in (OPENAI, MARSHALL_KIRCHNER, QUANTILES)}


def protocol_named(protocol: str | Protocol) -> Protocol:
    """The protocol called `protocol`, or the one given.

    Raises:
        DataError: for an unknown name.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise DataError(
            f"no protocol is called {protocol!r}{near(protocol, PROTOCOLS)} "
            f"(known: {', '.join(PROTOCOLS)})"
        )
    return PROTOCOLS[protocol]


def split(
    unit: str,
    site: str,
    kind: str,
    sign: int,
    protocol: Protocol,
    *,
    top: Sequence[Record],
    random: Sequence[Record] = (),
    quantile: Sequence[Record] = (),
) -> UnitRecords:
    """The records of a unit, split by `protocol` and checked.

    A text that occurs in two documents is one text: it counts where it comes first, so what was
    shown is never scored. Where no others are given in its place, there are fewer records.

    Args:
        unit, site, kind, sign: see `UnitRecords`.
        top: at least `protocol.n_top` records, highest maximum first; more are left out.
        random, quantile: likewise.

    Raises:
        DataError: for too few records, a document in two splits, or no two texts to split.
    """
    for what, found, needed in (
        ("top", top, protocol.n_top),
        ("random", random, protocol.n_random),
        ("quantile", quantile, protocol.n_quantile),
    ):
        if len(found) < needed:
            raise DataError(
                f"{unit} of {site!r} has {len(found)} {what} records of different documents, and "
                f"the protocol {protocol.name!r} needs {needed}; give more or shorter documents"
            )
    seen: set[tuple[str, ...]] = set()
    tops = _new(top, protocol.n_top, seen)
    randoms = _new(random, protocol.n_random, seen)
    quantiles = _new(quantile, protocol.n_quantile, seen)

    spread = ((3, 0), (3, 1), (3, 2)) if protocol.calibrated else ((2, 0), (2, None), (2, 1))

    def part(which: int) -> RecordSet:
        return RecordSet(
            _every(tops, protocol.top_stride, protocol.top[which]),
            _every(randoms, protocol.random_stride, protocol.random[which]),
            _every(quantiles, *spread[which]),
        )

    made = UnitRecords(unit, site, kind, sign, protocol.name, part(0), part(1), part(2))
    if not (made.explain.all() and made.score.all()):
        raise DataError(
            f"the texts on which {unit} of {site!r} is highest are one text over and over, so none "
            "is left to score on; remove repeated texts from the data"
        )
    check_disjoint(made)
    return made


def _new(records: Sequence[Record], n: int, seen: set[tuple[str, ...]]) -> list[Record]:
    """The first `n` of those whose text is not among the seen ones; each text once."""
    kept: list[Record] = []
    for record in records:
        if len(kept) < n and record.tokens not in seen:
            seen.add(record.tokens)
            kept.append(record)
    return kept


def _every(records: Sequence[Record], stride: int, place: int | None) -> tuple[Record, ...]:
    return () if place is None else tuple(records[place::stride])


def check_disjoint(unit: UnitRecords) -> None:
    """Raise DataError when a document or a text is in two splits, or twice in one."""
    seen: dict[int | tuple[str, ...], str] = {}
    for name, records in (
        ("explain", unit.explain),
        ("calibration", unit.calibration),
        ("score", unit.score),
    ):
        for record in records.all():
            for key in (record.document, record.tokens):
                if key in seen:
                    what = "" if key == record.document else "the text of "
                    raise DataError(
                        f"{what}document {record.document} is among the {seen[key]} and the "
                        f"{name} records of {unit.unit}; a score on what was shown is no score"
                    )
                seen[key] = name
