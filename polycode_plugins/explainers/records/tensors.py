"""The records of a comparison as a few long tensors, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.explainers.base import Record, RecordSet, Simulation, UnitRecords

SPLITS = ("explain", "calibration", "score")
KINDS = ("top", "random", "quantile", "negative")


class Packer:
    """Records and simulations as a few long tensors."""

    def __init__(self) -> None:
        self._words: dict[str, int] = {}
        self._true: list[Any] = []
        self._simulated: list[Any] = []
        self._tokens: list[int] = []
        self._table: list[tuple[int, ...]] = []

    def add(self, unit: int, records: UnitRecords, simulations: Sequence[Simulation]) -> None:
        """Take in the records of a unit, and the simulations of its scoring records."""
        made = iter(simulations)
        for s, split in enumerate(SPLITS):
            for k, kind in enumerate(KINDS):
                for record in getattr(getattr(records, split), kind):
                    done = next(made, None) if split == "score" else None
                    self._add(unit, s, k, record, done)

    def _add(
        self, unit: int, split: int, kind: int, record: Record, made: Simulation | None
    ) -> None:
        words = [self._words.setdefault(t, len(self._words)) for t in record.tokens]
        expected = made.expected if made is not None else None
        self._tokens += words
        self._true.append(record.activations)
        self._simulated.append(np.zeros(len(words)) if expected is None else expected)
        self._table.append(
            (unit, split, kind, len(words), record.document, record.row, expected is not None)
        )

    def vocabulary(self) -> list[str]:
        """The strings that `tokens` counts through."""
        return list(self._words)

    def tensors(self) -> dict[str, Tensor]:
        """Everything taken in."""
        return {
            "tokens": torch.tensor(self._tokens, dtype=torch.int32),
            "activations": torch.from_numpy(np.concatenate(self._true).astype(np.float32)),
            "simulated": torch.from_numpy(np.concatenate(self._simulated).astype(np.float64)),
            # unit, split, kind, tokens, document, row, whether it was simulated
            "records": torch.tensor(self._table, dtype=torch.int64),
        }


class Unpacker:
    """The records of each unit out of the tensors that a `Packer` made."""

    def __init__(self, tensors: Mapping[str, Tensor], vocabulary: list[str]) -> None:
        self._held: dict[int, dict[tuple[int, int], list[tuple[Record, Any]]]] = {}
        tokens, at = tensors["tokens"].tolist(), 0
        true, simulated = tensors["activations"].numpy(), tensors["simulated"].numpy()
        for unit, split, kind, n, document, row, was in tensors["records"].tolist():
            part = slice(at, at + n)
            record = Record(
                tuple(vocabulary[t] for t in tokens[part]), true[part], str(unit), document, row
            )
            found = self._held.setdefault(unit, {}).setdefault((split, kind), [])
            found.append((record, simulated[part] if was else None))
            at += n

    def sets(self, unit: int, name: str) -> list[RecordSet]:
        """The explaining, calibrating and scoring records of a unit."""
        held = self._held.get(unit, {})
        return [
            RecordSet(
                *(
                    tuple(dataclasses.replace(r, unit=name) for r, _ in held.get((s, k), []))
                    for k in range(len(KINDS))
                )
            )
            for s in range(len(SPLITS))
        ]

    def expected(self, unit: int) -> list[Any]:
        """What was simulated of each scoring record; None where nothing was."""
        held = self._held.get(unit, {})
        return [e for k in range(len(KINDS)) for _, e in held.get((2, k), [])]
