"""Directions of one's own: a matrix, or a file with a decoder's rows, probes, steering vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.errors import DataError, near
from polycode_plugins.explainers.units.base import Units
from polycode_plugins.files.paths import given


def directions(
    matrix: Tensor | np.ndarray[Any, Any],
    names: Sequence[str] | None = None,
    *,
    kind: str = "direction",
    offsets: Tensor | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Units:
    """Directions of one's own (a decoder's rows, a probe), [units, width] or [width], as given."""
    made = torch.as_tensor(matrix).detach().to("cpu", torch.float32)
    made = made[None] if made.dim() == 1 else made
    labels = tuple(names) if names is not None else tuple(f"{kind} {i}" for i in range(len(made)))
    return Units(
        kind,
        labels,
        made,
        torch.zeros(len(made)) if offsets is None else offsets.to("cpu", torch.float32),
        origin or {},
    )


def read_directions(source: str) -> Units:
    """The rows of a matrix [units, width] in a .npy file, or of a tensor in a .safetensors file.

    Args:
        source: the path; of a .safetensors file with more than one matrix, PATH:NAME.

    Raises:
        DataError: for a file that cannot be read or holds no such matrix.
    """
    path, name = given(source), ""
    if not path.is_file() and ":" in source:
        before, _, name = source.rpartition(":")
        path = given(before)
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r} with directions; check the path")
    matrix = _npy(path) if path.suffix == ".npy" else _tensor(path, name)
    if matrix.dtype.kind not in "fiu" or matrix.ndim not in (1, 2):
        raise DataError(
            f"{source!r} holds {matrix.dtype} of shape {matrix.shape}; directions are real "
            "numbers [units, width]"
        )
    origin = {"file": path.name, **({"tensor": name} if name else {})}
    return directions(matrix.astype(np.float32), origin=origin)


def _npy(path: Path) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise DataError(f"{str(path)!r} cannot be read as .npy: {error}") from error


def _tensor(path: Path, name: str) -> np.ndarray[Any, Any]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as held:
            matrices = [k for k in held.keys() if len(held.get_slice(k).get_shape()) == 2]  # noqa: SIM118
            if not name and len(matrices) != 1:
                raise DataError(
                    f"{str(path)!r} holds {len(matrices)} matrices; say which is meant as "
                    f"{path}:NAME ({', '.join(sorted(matrices)[:8])})"
                )
            name = name or matrices[0]
            if name not in held.keys():  # noqa: SIM118
                raise DataError(f"{str(path)!r} has no tensor {name!r}{near(name, held.keys())}")
            return np.asarray(held.get_tensor(name).float().numpy())
    except DataError:
        raise
    except Exception as error:  # safetensors raises its own type, which it does not export
        raise DataError(f"{str(path)!r} cannot be read as safetensors: {error}") from error
