"""The record of a run: what made it, which rows it has seen, and whether two belong together."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polycode_plugins._version import __version__
from polycode_plugins.errors import StateError
from polycode_plugins.files import guards

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
_SAME = ("format", "model", "metrics", "options", "seed", "data")

# What the fields of a run's record are, where they are there.
_RECORD: dict[str, Any] = {
    "batches": int,
    "command": str | None,
    "complete": bool,
    "created": str,
    "data": str,
    "libraries": dict,
    "metrics": list,
    "model": dict | None,
    "options": dict | None,
    "polycode-plugins": str,
    "python": str,
    "rows": dict,
    "seed": int | None,
    "shards": list,
    "sites": list,
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

    def extended(self, rows: Tensor, inputs: Any) -> Rows:
        """With one batch more: `rows` int64 [batch] ascending, `inputs` as the model was given."""
        indices = [int(i) for i in rows]
        digest = self.digest
        tensors = [t.detach().cpu().contiguous() for t in _tensors(inputs)]
        for at, index in enumerate(indices):
            row = hashlib.sha256(index.to_bytes(8, "little"))
            for tensor in tensors:
                if tensor.dim() and tensor.shape[0] == len(indices):
                    row.update(_bytes(tensor[at]))
            digest = (digest + int.from_bytes(row.digest(), "little")) % 2**256
        return Rows(_appended(self.ranges, indices), digest)

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


def _tensors(inputs: Any) -> list[Tensor]:
    if isinstance(inputs, Tensor):
        return [inputs]
    if isinstance(inputs, Mapping):
        return [t for key in sorted(inputs) for t in _tensors(inputs[key])]
    if isinstance(inputs, tuple | list):
        return [t for part in inputs for t in _tensors(part)]
    return []


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.reshape(-1)
    return bytes(flat.view(torch.uint8).numpy().data) if flat.numel() else b""


def fingerprint(model: Any) -> str | None:
    """Identifies a model's weights: SHA-256 over names, shapes and a sample of every parameter.

    Reads 64 evenly spaced values of each parameter and buffer, so that it costs milliseconds, and
    a model that was trained on or edited has another one. None for what is no nn.Module.
    """
    if not isinstance(model, nn.Module):
        return None
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, Tensor) or tensor.is_meta:
            continue
        flat = tensor.detach().reshape(-1)
        pick = np.unique(np.linspace(0, max(flat.numel() - 1, 0), 64).astype(np.int64))
        sample = flat[torch.from_numpy(pick).to(flat.device)] if flat.numel() else flat
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(sample.double().cpu().numpy().tobytes())
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """Versions of what the numbers depend on."""
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "polycode-plugins": __version__,
        "python": platform.python_version(),
        "libraries": libraries,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def check_record(run: Mapping[str, Any], what: str) -> None:
    """Raise StateError where a record that was read states something that no run does."""
    guards.require_types(run, _RECORD, what)
    for part, types in _PARTS.items():
        guards.require_types(run.get(part) or {}, types, f"{part!r} in {what}")


def same_analysis(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Raise StateError, naming the first difference, unless two records are of one analysis."""
    for field in _SAME:
        if a.get(field) != b.get(field):
            difference = _difference(field, a.get(field), b.get(field))
            raise StateError(f"these are parts of different analyses: {difference}")
    names = [[s["name"] for s in run.get("sites", [])] for run in (a, b)]
    if names[0] != names[1]:
        only = [repr(name) for name in sorted(set(names[0]) ^ set(names[1]))] or ["their order"]
        raise StateError(f"these are parts of different analyses: the sites differ in {only[0]}")


def _difference(field: str, a: Any, b: Any) -> str:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted(set(a) | set(b)):
            if a.get(key) != b.get(key):
                return _difference(f"{field}.{key}", a.get(key), b.get(key))
    return f"{field} is {a!r} in one and {b!r} in the other"
