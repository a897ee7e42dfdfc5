"""Protocols: how many records a unit needs, and which are for explaining and which for scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from polycode_plugins.errors import DataError, near
from polycode_plugins.explainers.base import Record, RecordSet, UnitRecords
from polycode_plugins.explainers.records.near_copies import NearCopies


@dataclass(frozen=True)
class Protocol:
    """How the records of a unit are split.

    Attributes:
        name: recorded with every result.
        n_top: records of the highest maxima, a multiple of `top_stride`.
        n_random: records drawn at random, a multiple of `random_stride`; may be 0.
        n_quantile: records by quantile of the maxima, split like the random ones but with every
            third for explaining.
        n_negative: hard negatives at most, split like the random ones; see `RecordSet`.
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
    n_negative: int = 0

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
#: As OpenAI's, and beside them texts by quantile, for explaining too, and hard negatives: scored on
#: 5 of each. What a unit does in between is seen, and what merely looks like its texts.
FAIR = Protocol("fair", 20, 15, 15, 4, (0, 1, 2), 3, (None, 0, 1), 15)
PROTOCOLS = {p.name: p for p in (OPENAI, MARSHALL_KIRCHNER, FAIR)}


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
    negative: Sequence[Record] = (),
) -> UnitRecords:
    """The records of a unit, split by `protocol` and checked.

    A text that occurs in two documents is one text, and so is a near copy of it: it counts where it
    comes first, so what was shown is never scored. Where no others are given in its place, there
    are fewer records.

    Args:
        unit, site, kind, sign: see `UnitRecords`.
        top: at least `protocol.n_top` records, highest maximum first; more are left out.
        random, quantile: likewise.
        negative: any number.

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
    seen = NearCopies()
    return parted(
        UnitRecords(unit, site, kind, sign, protocol.name, RecordSet(), RecordSet(), RecordSet()),
        protocol,
        RecordSet(
            *(
                tuple(seen.first(records, n))
                for records, n in (
                    (top, protocol.n_top),
                    (random, protocol.n_random),
                    (quantile, protocol.n_quantile),
                    (negative, protocol.n_negative),
                )
            )
        ),
    )


def parted(unit: UnitRecords, protocol: Protocol, records: RecordSet) -> UnitRecords:
    """The unit with records of texts that are unlike each other in the splits of a protocol.

    Raises:
        DataError: for a document in two splits, or no two texts to split.
    """
    spread = ((3, 0), (3, 1), (3, 2)) if protocol.calibrated else ((2, 0), (2, None), (2, 1))

    def part(which: int) -> RecordSet:
        return RecordSet(
            _every(records.top, protocol.top_stride, protocol.top[which]),
            _every(records.random, protocol.random_stride, protocol.random[which]),
            _every(records.quantile, *spread[which]),
            _every(records.negative, protocol.random_stride, protocol.random[which]),
        )

    made = replace(unit, explain=part(0), calibration=part(1), score=part(2))
    if not (made.explain.all() and made.score.all()):
        raise DataError(
            f"the texts on which {unit.unit} of {unit.site!r} is highest are one text over and "
            "over, or almost, so none is left to score on; remove repeated texts from the data"
        )
    check_disjoint(made)
    return made


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
