"""Reads the folder of a sparse autoencoder, of SAELens or of sparsify, without either package.

A folder is JSON and safetensors; nothing is unpickled. What the JSON says and this module does not
know is refused where it could change an activation, and left alone where it cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from polycode_plugins.errors import DataError, StateError
from polycode_plugins.explainers.units.autoencoder import sae_lens, sparsify
from polycode_plugins.explainers.units.autoencoder.features import KIND, Features, features_of
from polycode_plugins.files import guards
from polycode_plugins.files.paths import given
from polycode_plugins.files.tensors import Saved

CONFIG = "cfg.json"
#: The file of the weights says whose folder it is.
WEIGHTS = {sae_lens.WEIGHTS: sae_lens.read, sparsify.WEIGHTS: sparsify.read}


def read_autoencoder(
    folder: str | Path,
    *,
    site: str = "",
    scale: float | None = None,
    kind: str = KIND,
) -> Features:
    """The features of a sparse autoencoder out of a folder of SAELens or sparsify.

    Activations are those of the package (`SAE.encode`, `SparseCoder.encode`), computed in float32
    whatever the type of the weights.

    Args:
        folder: with cfg.json beside sae_weights.safetensors (SAELens, standard, jumprelu, topk,
            abstopk, gated, batchtopk and transcoders, of versions 2 to 6) or sae.safetensors
            (sparsify, topk and groupmax, transcoders too).
        site: where it reads, by the adapter's name; by default what the folder says (a name of
            TransformerLens in SAELens, the path of a module in sparsify), which every adapter
            translates for its models.
        scale: what activations are multiplied with first, for a folder that was trained on
            activations of an expected norm and does not hold the factor.
        kind: of the units; two autoencoders of one site need two.

    Raises:
        DataError: for a folder that is damaged or of something else, an architecture that is not
            read, or a factor that is missing.
    """
    path = given(folder)
    if not path.is_dir():
        raise DataError(f"there is no folder {str(path)!r} with an autoencoder; check the path")
    name = next((n for n in WEIGHTS if (path / n).is_file()), None)
    if name is None or not (path / CONFIG).is_file():
        raise DataError(_no_autoencoder(path))
    config = guards.read_json(path / CONFIG, DataError)
    try:
        tensors: Mapping[str, Tensor] = Saved(path / name)
        found = WEIGHTS[name](config, dict(tensors), path.name, scale)
    except (DataError, StateError) as error:
        raise DataError(f"the autoencoder in {str(path)!r} is not read: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"the autoencoder in {str(path)!r} is damaged: {type(error).__name__} {error}"
        ) from error
    origin: dict[str, Any] = {"folder": path.name, **found.origin}
    return features_of(found.encoder, kind=kind, hook=found.hook, site=site, origin=origin)


def _no_autoencoder(path: Path) -> str:
    """What is in the folder instead, and what to give."""
    inner = sorted(p.name for p in path.iterdir() if (p / CONFIG).is_file())
    if inner:
        first = ", ".join(inner[:6]) + (", ..." if len(inner) > 6 else "")
        return (
            f"{str(path)!r} holds {len(inner)} folders of autoencoders ({first}); give one of them"
        )
    pickled = [p.name for p in sorted(path.iterdir()) if p.suffix in (".pt", ".pth", ".npz")]
    if pickled:
        return (
            f"{str(path)!r} holds {pickled[0]}, which is not read: load it with SAELens and save "
            "it with sae.save_model(folder), as JSON and safetensors"
        )
    return (
        f"{str(path)!r} holds no autoencoder: {CONFIG} and one of {', '.join(WEIGHTS)} are needed, "
        "as SAELens and sparsify write them"
    )
