"""The record of a run: what made it, which rows it has seen, and whether two belong together."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from polycode_plugins._version import __version__
from polycode_plugins.errors import StateError
from polycode_plugins.files import guards, weights
from polycode_plugins.files.content import by_row

FORMAT = 1  # of the saved files; raised when older versions could misread newer ones

_LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "transformer-lens",
    "transformers",
    "torchvision",
    "nnsight",
)
# What must agree for two runs to be parts of one analysis. Sites may differ in what a part that saw
# no data cannot know (axes and width), so they are compared by name.
_SAME = ("format", "model", "metrics", "options", "seed", "data", "content")

# What the fields of a run's record are, where they are there.
_RECORD: dict[str, Any] = {
    "batches": int,
    "command": str | None,
    "commands": list[str],
    "complete": bool,
    "content": str | None,
    "created": str,
    "data": str,
    "left_out": dict[str, dict[str, int]] | None,
    "libraries": dict,
    "metrics": list,
    "model": dict | None,
    "narrow": dict[str, str] | None,
    "options": dict | None,
    "parts": int,
    "polycode-plugins": str,
    "python": str,
    "rows": dict,
    "samples": dict[str, int],
    "seconds": float,
    "seed": int | None,
    "shards": list,
    "sites": list,
    "special": dict[str, int] | None,
    "stopping": dict,
}
_PARTS: dict[str, dict[str, Any]] = {
    "model": {
        "adapter": str | None,
        "dtype": str | None,
        "fingerprint": str | None,
        "name": str | None,
        "notes": list | None,
        "parameters": int | None,
        "type": str | None,
    },
    "rows": {"count": int, "digest": str, "ranges": list},
}


@dataclass(frozen=True)
class Rows:
    """Which rows of the data have been seen, and a digest of what was in them.

    Attributes:
        ranges: (start, step, count) of each arithmetic progression of row indices.
        digest: sum modulo 2^256 of one SHA-256 per row (index and content), so that the digest of
            joined parts does not depend on their order.
    """

    ranges: tuple[tuple[int, int, int], ...] = ()
    digest: int = 0

    @property
    def count(self) -> int:
        """Rows seen."""
        return sum(n for _, _, n in self.ranges)

    def extended(self, rows: Tensor, inputs: Any, **beside: Any) -> Rows:
        """With one batch more.

        Args:
            rows: int64 [batch], ascending.
            inputs: as the model was given them.
            beside: what else the statistics were told of the batch (mask, documents, labels).
        """
        indices = [int(i) for i in rows]
        known = {name: value for name, value in beside.items() if value is not None}
        columns = by_row(inputs, len(indices)) + by_row(known, len(indices))
        digest = self.digest
        for at, index in enumerate(indices):
            row = hashlib.sha256(index.to_bytes(8, "little"))
            for header, content in columns:
                row.update(header)
                row.update(content if isinstance(content, bytes) else content[at])
            digest = (digest + int.from_bytes(row.digest(), "little")) % 2**256
        return Rows(_appended(self.ranges, indices), digest)

    def holds(self, rows: Tensor) -> Tensor:
        """bool [batch], True for those of the indices `rows` int64 [batch] that are in it."""
        found = torch.zeros(len(rows), dtype=torch.bool)
        for start, step, count in self.ranges:
            place = rows - start
            found |= (place >= 0) & (place % step == 0) & (place < step * count)
        return found

    def joined(self, other: Rows) -> Rows:
        """Both parts together.

        Raises:
            StateError: when a row is in both.
        """
        for a in self.ranges:
            for b in other.ranges:
                shared = _overlap(a, b)
                if shared is not None:
                    raise StateError(
                        f"row {shared} of the data is in both parts, so merging them would count "
                        "it twice; merge each part once"
                    )
        return Rows(
            tuple(sorted((*self.ranges, *other.ranges))), (self.digest + other.digest) % 2**256
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "count": self.count,
            "ranges": [list(r) for r in self.ranges],
            "digest": f"{self.digest:064x}",
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rows:
        """What `to_json` gave."""
        try:
            ranges = tuple((start, step, count) for start, step, count in value["ranges"])
            digest = int(value["digest"], 16)
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"run.json misstates the rows of the data: {error}") from error
        for found in ranges:
            whole = all(type(number) is int for number in found)
            if not whole or found[0] < 0 or min(found[1:]) < 1:
                raise StateError(
                    f"run.json misstates the rows of the data: {list(found)} is no "
                    "[start, step, count] of whole numbers from 0, 1 and 1"
                )
        if not 0 <= digest < 2**256:
            raise StateError("run.json misstates the rows of the data: the digest is out of range")
        rows = cls(ranges, digest)
        if value.get("count", rows.count) != rows.count:
            raise StateError(
                f"run.json misstates the rows of the data: the ranges hold {rows.count} rows, not "
                f"{value['count']}"
            )
        return rows


def _appended(
    ranges: tuple[tuple[int, int, int], ...], indices: list[int]
) -> tuple[tuple[int, int, int], ...]:
    grown = list(ranges)
    for index in indices:
        if grown:
            start, step, count = grown[-1]
            if count == 1 and index > start:
                grown[-1] = (start, index - start, 2)
                continue
            if index == start + step * count:
                grown[-1] = (start, step, count + 1)
                continue
        grown.append((index, 1, 1))
    return tuple(grown)


def _overlap(a: tuple[int, int, int], b: tuple[int, int, int]) -> int | None:
    """The first index two progressions share, None when they share none."""
    (start, step, count), (other_start, other_step, other_count) = a, b
    common = math.gcd(step, other_step)
    if (other_start - start) % common:
        return None
    # The Chinese remainder theorem: all shared indices are `index` modulo `period`.
    period = step * other_step // common
    inverse = pow(step // common, -1, other_step // common)
    index = start + step * ((other_start - start) // common * inverse % (other_step // common))
    index += -((index - max(start, other_start)) // period) * period
    last = min(start + step * (count - 1), other_start + other_step * (other_count - 1))
    return index if index <= last else None


def environment() -> dict[str, Any]:
    """Versions of what the numbers depend on."""
    return {
        "polycode-plugins": __version__,
        "python": platform.python_version(),
        "libraries": dict(_libraries()),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache  # what is installed over a library that is loaded counts for the next process
def _libraries() -> Mapping[str, str]:
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return libraries


def check_record(run: Mapping[str, Any], what: str) -> None:
    """Raise StateError where a record that was read states something that no run does."""
    guards.require_types(run, _RECORD, what)
    for part, types in _PARTS.items():
        guards.require_types(run.get(part) or {}, types, f"{part!r} in {what}")


def same_analysis(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Raise StateError, naming the first difference, unless two records are of one analysis.

    What cannot be proven is a difference: weights that neither record has a fingerprint of, or has
    in another format. Where neither has the digest of the data's content, the caller says why.
    """
    _same_weights(a, b)
    for field in _SAME:
        if a.get(field) != b.get(field):
            difference = _difference(field, a.get(field), b.get(field))
            raise StateError(f"{_DIFFERENT}: {difference}")
    names = [[s["name"] for s in run.get("sites", [])] for run in (a, b)]
    if names[0] != names[1]:
        only = [repr(name) for name in sorted(set(names[0]) ^ set(names[1]))] or ["their order"]
        raise StateError(f"{_DIFFERENT}: the sites differ in {only[0]}")


def _same_weights(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Raise StateError where nothing tells whether the weights of two records are the same."""
    models = [run.get("model") or {} for run in (a, b)]
    formats = [weights.format_of(model.get("fingerprint")) for model in models]
    if formats[0] != formats[1] and None not in formats:
        raise StateError(
            f"nothing proves that the weights are the same: their fingerprints are of format "
            f"{formats[0]} in one and {formats[1]} in the other, made by different versions; run "
            "both with one version"
        )
    if formats == [None, None] and any(models):
        raise StateError(
            "nothing proves that the weights are the same: the model gives no fingerprint "
            "(weights that are not in this process, or no torch module whose adapter describes "
            "one); analyse all of the data in one run"
        )


_DIFFERENT = "these are parts of different analyses"


def _difference(field: str, a: Any, b: Any) -> str:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted(set(a) | set(b)):
            if a.get(key) != b.get(key):
                return _difference(f"{field}.{key}", a.get(key), b.get(key))
    if field == "content":
        return (
            "the data itself differs (the digest of its content), by whatever name it goes; give "
            "every part the same data in the same order, of which it takes its own rows"
        )
    return f"{field} is {a!r} in one and {b!r} in the other"
