"""Reads the NeuronRecord JSON of OpenAI's neuron-explainer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.base import Record, UnitRecords
from polycode_plugins.explainers.records.protocols import Protocol, protocol_named, split
from polycode_plugins.files import guards


def read_neuron_records(path: str | Path, protocol: str | Protocol = "openai") -> UnitRecords:
    """The records of one neuron out of a NeuronRecord file, split by a protocol.

    The file names no documents, so a text is its own document: one that is both among the most
    positive and among the random ones is left out of the latter. Where the file has a random sample
    by quantile, it is read too.

    Raises:
        DataError: for a file that is no NeuronRecord, or has too few records.
    """
    chosen = protocol_named(protocol)
    content = guards.read_json(Path(path), DataError)
    try:
        place = content.get("neuron_id") or {}
        name = f"neuron {place.get('neuron_index', '?')}"
        site = f"layer {place.get('layer_index', '?')}"
        top = _records(content["most_positive_activation_records"], name)
        random = _records(content["random_sample"], name)
        parts = content.get("random_sample_by_quantile") or []
        quantile = _records([record for part in parts for record in part[:1]], name)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{str(path)!r} is no NeuronRecord of neuron-explainer: {type(error).__name__} {error}"
        ) from error
    top.sort(key=lambda r: -float(r.activations.max()))
    top = _new(top, set())
    random = _new(random, {r.document for r in top})
    taken = {r.document for r in (*top, *random)}
    return split(
        name,
        site,
        "recorded",
        1,
        chosen,
        top=top,
        random=random,
        quantile=_new(quantile, taken),
    )


def _records(items: Sequence[dict[str, Any]], name: str) -> list[Record]:
    made = []
    for row, item in enumerate(items):
        tokens = tuple(str(t) for t in item["tokens"])
        activations = np.asarray(item["activations"], dtype=np.float32)
        if activations.shape != (len(tokens),) or not len(tokens):
            raise ValueError(f"record {row} has {len(tokens)} tokens and {activations.size} values")
        if not np.isfinite(activations).all():
            raise ValueError(f"record {row} holds NaN or infinity")
        made.append(Record(tokens, activations, name, _document(tokens), row))
    return made


def _document(tokens: tuple[str, ...]) -> int:
    digest = hashlib.sha256(json.dumps(tokens).encode()).digest()
    return int.from_bytes(digest[:7], "little")  # a number that int64 holds


def _new(records: Sequence[Record], taken: set[int]) -> list[Record]:
    """Those of texts that are not taken, each text once."""
    seen, kept = set(taken), []
    for record in records:
        if record.document not in seen:
            seen.add(record.document)
            kept.append(record)
    return kept
