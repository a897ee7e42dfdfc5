"""Reads the NeuronRecord JSON of OpenAI's neuron-explainer, of all its versions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.base import Record, UnitRecords
from polycode_plugins.explainers.records.protocols import Protocol, protocol_named, split
from polycode_plugins.explainers.records.unit_records import Shape, shape_of
from polycode_plugins.files import guards
from polycode_plugins.files.paths import given

KIND = "recorded"
#: What versions and forks call the place of a unit, its layer and its number.
_PLACES = ("neuron_id", "node_id", "feature_id", "latent_id")
_LAYERS = ("layer_index", "layer")
_NUMBERS = ("neuron_index", "neuron", "idx", "index", "feature_index", "latent_index")
_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)


def read_neuron_records(path: str | Path, protocol: str | Protocol = "openai") -> UnitRecords:
    """The records of one neuron out of a NeuronRecord file, split by a protocol.

    The file names no documents, so a text is its own document: one that occurs again, among the
    most positive, the random ones or those by quantile, counts where it comes first. Where the file
    has fewer texts than the protocol takes, as older ones have, the splits are smaller;
    `UnitRecords.notes` say what was left out and what is missing. Samples by quantile are read by a
    protocol that takes them ("fair").

    Raises:
        DataError: for a file that is no NeuronRecord, or has too few records for all splits.
    """
    return read_neuron(path, protocol)[0]


def read_neuron(
    path: str | Path,
    protocol: str | Protocol = "openai",
    *,
    kind: str = KIND,
    words: dict[str, str] | None = None,
) -> tuple[UnitRecords, Shape]:
    """`read_neuron_records`, and the distribution of the neuron's activations on random texts.

    Args:
        path: of the file.
        protocol: that splits.
        kind: of the unit; one of another kind than "recorded" and "neuron" is named after it.
        words: tokens of other files: each is in memory once.

    Raises:
        DataError: see `read_neuron_records`.
    """
    chosen = protocol_named(protocol)
    place = given(path)
    content = guards.read_json(place, DataError)
    known: dict[str, str] = {} if words is None else words
    try:
        layer, number = _place(content, place)
        name = f"{'neuron' if kind == KIND else kind} {number}"
        top = _records(content["most_positive_activation_records"], name, known)
        random = _records(content["random_sample"], name, known)
        sampled = content.get("random_sample_by_quantile") if chosen.n_quantile else None
        quantile = _records(_spread(sampled or []), name, known)
    except _UNREADABLE as error:
        raise DataError(
            f"{str(path)!r} is no NeuronRecord of neuron-explainer: {type(error).__name__} {error}"
        ) from error
    top.sort(key=lambda r: -float(r.activations.max()))
    seen: set[int] = set()
    parts = {
        "top": (top, _new(top, seen), chosen.n_top, chosen.top_stride),
        "random": (random, _new(random, seen), chosen.n_random, chosen.random_stride),
        "quantile": (quantile, _new(quantile, seen), chosen.n_quantile, 3),
    }
    site = f"layer {layer}"
    notes = _notes(parts)
    held = {what: min(needed, len(new)) for what, (_, new, needed, _) in parts.items()}
    for what, (_, new, needed, least) in parts.items():
        if needed and held[what] < min(least, needed):
            raise DataError(
                f"{name} of {site!r} in {str(path)!r} has {len(new)} {what} records of different "
                f"texts, and the protocol {chosen.name!r} needs {least} of them for its splits "
                f"(and takes {needed})"
            )
    smaller = replace(
        chosen, n_top=held["top"], n_random=held["random"], n_quantile=held["quantile"]
    )
    samples = sorted(parts["quantile"][1][: held["quantile"]], key=lambda r: r.activations.max())
    made = split(
        name,
        site,
        kind,
        1,
        smaller,
        top=parts["top"][1],
        random=parts["random"][1],
        quantile=samples,
    )
    at_random = [r.activations for r in random or top]
    return replace(made, notes=notes), shape_of(np.concatenate(at_random), made.maximum)


def _place(content: Mapping[str, Any], path: Path) -> tuple[str, str]:
    """The layer and the number of a neuron, by what the file says, or by its own name."""
    inner: Mapping[str, Any] = next(
        (content[name] for name in _PLACES if isinstance(content.get(name), Mapping)), {}
    )
    merged = {**content, **inner}
    layer, number = (
        next((merged[name] for name in names if isinstance(merged.get(name), int)), None)
        for names in (_LAYERS, _NUMBERS)
    )
    # OpenAI's files lie as LAYER/NEURON.json.
    if number is None:
        number = path.stem
        if layer is None and re.fullmatch(r"\d+", path.stem + path.parent.name):
            layer = path.parent.name
    return str("?" if layer is None else layer), str(number)


def _spread(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """Samples of all quantiles in turns, so that any number of them is of all."""
    turns = zip_longest(*parts)
    return [item for item in chain.from_iterable(turns) if item is not None]


def _records(items: Iterable[Mapping[str, Any]], name: str, words: dict[str, str]) -> list[Record]:
    made = []
    for row, item in enumerate(items):
        tokens = tuple(words.setdefault(t, t) for t in map(str, item["tokens"]))
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


def _new(records: Sequence[Record], seen: set[int]) -> list[Record]:
    """Those of texts that were not seen yet, each text once; they are seen from now on."""
    kept = []
    for record in records:
        if record.document not in seen:
            seen.add(record.document)
            kept.append(record)
    return kept


def _notes(parts: Mapping[str, tuple[list[Record], list[Record], int, int]]) -> tuple[str, ...]:
    """What was left out of the texts, and how many there are fewer than the protocol takes."""
    said = []
    again = sum(len(every) - len(new) for every, new, needed, _ in parts.values() if needed)
    if again:
        said.append(f"{again} of its texts occur again and count once")
    for what, (_, new, needed, _) in parts.items():
        if len(new) < needed:
            said.append(f"it has {len(new)} {what} texts and the protocol takes {needed}")
    return tuple(said)
