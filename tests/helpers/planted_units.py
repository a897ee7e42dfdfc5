"""Units that fire on the words of one concept, so their explanation is known."""

from __future__ import annotations

import numpy as np
from openai_rules import CONCEPTS

from polycode_plugins.explainers.base import Record, RecordSet, UnitRecords

FILLER = ("the", "old", "road", "went", "past", "a", "quiet", "field", "until", "evening")


def planted(concept: str, seed: int = 0, texts: int = 6, length: int = 24) -> UnitRecords:
    """A unit at 7.5 on the concept's words and 0 elsewhere; half of the texts hold such words."""
    rng = np.random.default_rng(seed)
    every = sorted(set().union(*CONCEPTS.values()))
    other = [w for w in every if w not in CONCEPTS[concept]]
    records = []
    for row in range(2 * texts):
        words = rng.choice(FILLER, length).tolist()
        words[int(rng.integers(2, length))] = str(rng.choice(other))
        if row < texts:
            for place in rng.choice(np.arange(1, length), 3, replace=False):
                words[place] = str(rng.choice(sorted(CONCEPTS[concept])))
        tokens = tuple(word if i == 0 else f" {word}" for i, word in enumerate(words))
        values = np.array([7.5 if w in CONCEPTS[concept] else 0.0 for w in words], np.float32)
        records.append(Record(tokens, values, concept, document=row, row=row))
    top, rest = records[:texts], records[texts:]
    half = texts // 2
    return UnitRecords(
        concept, "site", "neuron", 1, "planted",
        explain=RecordSet(top=tuple(top[:half])), calibration=RecordSet(),
        score=RecordSet(top=tuple(top[half:]), random=tuple(rest[: texts - half])),
    )  # fmt: skip


UNITS = [planted(concept, seed) for seed, concept in enumerate(CONCEPTS)]
