"""What `compare` and `explain` read of others, and write for others."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from polycode_plugins.errors import DataError

if TYPE_CHECKING:
    from polycode_plugins.explainers.comparison.outcome import Comparison
    from polycode_plugins.explainers.units.base import Units

#: Flags that say nothing of units that others have recorded.
_OF_MODELS = (
    *("model", "text", "sites", "adapter", "device", "dtype", "option", "limit"),
    *("signs", "sae", "directions", "numbers", "control"),
)


def add_autoencoders(parser: argparse.ArgumentParser, what: str) -> None:
    """The arguments that name autoencoders; `what` begins their help."""
    parser.add_argument(
        "--sae",
        action="append",
        default=[],
        metavar="FOLDER[:SITE]",
        help=f"{what} a sparse autoencoder, read at the site that its folder names: of SAELens or "
        "sparsify, cfg.json with safetensors; may be repeated for other sites",
    )
    parser.add_argument(
        "--sae-scale",
        type=float,
        metavar="FACTOR",
        help="what its activations are multiplied with first, where it needs one",
    )


def autoencoders_of(options: argparse.Namespace) -> list[Units]:
    """The features of every `--sae`."""
    from polycode_plugins.explainers.units.autoencoder.folder import read_autoencoder

    made: list[Units] = []
    for given in options.sae:
        folder, site = given, ""
        while not Path(folder).is_dir() and ":" in folder:  # a site may hold a colon too
            folder, _, part = folder.rpartition(":")
            site = f"{part}:{site}" if site else part
        if not Path(folder).is_dir():
            folder, site = given, ""
        made.append(read_autoencoder(folder, site=site, scale=options.sae_scale))
    if options.sae_scale is not None and not made:
        raise DataError("--sae-scale is of an autoencoder; give it with --sae FOLDER")
    return made


def add_others(parser: argparse.ArgumentParser) -> None:
    """The arguments for what others made, and for what is made for Neuronpedia."""
    others = parser.add_argument_group("what others made")
    others.add_argument(
        "--records",
        action="append",
        default=[],
        metavar="[KIND=]PATH",
        help="explain units of NeuronRecord files (OpenAI's neuron-explainer) in place of a "
        "model's: a file, a folder or a pattern; may be repeated for other kinds",
    )
    others.add_argument(
        "--explanations",
        type=Path,
        metavar="FILE",
        help="score explanations that are written: .jsonl, .json or .csv with explanation, unit "
        "and, where needed, site, kind, sign; --explainer simulates and judges by them",
    )
    exchange = parser.add_argument_group("for Neuronpedia")
    exchange.add_argument("--export", type=Path, help="write explanations as its exports have them")
    exchange.add_argument(
        "--export-features",
        type=Path,
        help="write explanations and activations as it is sent them (feature/upload-batch)",
    )
    exchange.add_argument(
        "--model-id", help="the model's name there, for example gpt2-small (default: the model's)"
    )
    exchange.add_argument(
        "--source-set", help="the source set there that --export-features is for, such as res-16k"
    )


def records_of(options: argparse.Namespace) -> dict[str, list[str]]:
    """The paths of each kind of `--records`.

    Raises:
        DataError: where flags of a model stand beside.
    """
    for flag in _OF_MODELS:
        if getattr(options, {"text": "data"}.get(flag, flag), None):
            raise DataError(
                f"--records reads units that others recorded and no model; leave --{flag} out"
            )
    kinds: dict[str, list[str]] = {}
    for given in options.records:
        kind, equals, path = given.partition("=")
        if not equals or not kind.isidentifier() or Path(given).exists():
            kind, path = "recorded", given
        kinds.setdefault(kind, []).append(path)
    return kinds


def exported(comparison: Comparison, options: argparse.Namespace) -> Iterator[str]:
    """Write what was asked for, and say where it is."""
    if options.export is not None:
        yield f"explanations: {comparison.export(options.export, model_id=options.model_id)}"
    if options.export_features is not None:
        names = {"model_id": options.model_id, "source_set": options.source_set}
        yield f"features: {comparison.export_features(options.export_features, **names)}"
