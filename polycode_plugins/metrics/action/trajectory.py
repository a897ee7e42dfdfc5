"""Trajectories of one path in random projections, the smallest ones above all.

Marshall & Kirchner 2024, figure 4 and the script `generate_trajectory.py` that supplement 1
describes: the smallest action over a text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from polycode_plugins import theory
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.files.paths import given
from polycode_plugins.metrics.inputs import as_activations, check_finite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

CHUNK_VALUES = 4_000_000  # entries of projections and of trajectories in one product
MAX_KEPT_BYTES = 2**30
# Keeps the projections apart from data that somebody else drew with the same seed.
STREAM = 0x7247EC


@dataclass(frozen=True, eq=False)
class Trajectories:
    """One path [time, width] seen through random projections r [width, k], entries N(0, 1/width).

    Attributes:
        points: float64 [n, time, k], a_t r for the n projections that are kept; in units of
            activation.
        index: int64 [n], which projection each is; `projection(i)` gives r.
        actions: float64 [projections], 1/2 sum_t ||(a_{t+1} - a_t) r||^2 of all that were drawn,
            kept or not; in units of activation squared.
        expected: exact mean action over projections, see `theory.expected_action`.
        width: m.
        seed: of the projections.
        labels: one text for each time step (tokens), or None.
    """

    points: Floats
    index: NDArray[np.int64]
    actions: Floats
    expected: float
    width: int
    seed: int
    labels: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Trajectories that are kept."""
        return len(self.index)

    @property
    def dimensions(self) -> int:
        """k, of a projection."""
        return int(self.points.shape[2])

    @property
    def kept_actions(self) -> Floats:
        """float64 [n], the actions of the trajectories that are kept."""
        kept: Floats = self.actions[self.index]
        return kept

    def smallest(self, n: int = 1) -> Trajectories:
        """The `n` kept trajectories of smallest action, in ascending order.

        Raises:
            DataError: for more than are kept.
        """
        if not 1 <= n <= len(self):
            raise DataError(f"{len(self)} trajectories are kept, so n is from 1 to that, not {n!r}")
        order = np.argsort(self.kept_actions, kind="stable")[:n]
        return replace(self, points=self.points[order], index=self.index[order])

    def projection(self, i: int) -> Floats:
        """float64 [width, k], the projection of the i-th of all that were drawn.

        Drawn again from the seed, whatever was kept; a column of it is a direction in the layer.
        """
        if not 0 <= i < len(self.actions):
            raise DataError(
                f"projection {i!r} is none of the {len(self.actions)} that were drawn, 0 to "
                f"{len(self.actions) - 1}"
            )
        return _projection(self.seed, int(i), self.width, self.dimensions)

    def plot(self, n: int = 9) -> Figure:
        """The first `n` kept trajectories as small multiples, coloured by time (viridis).

        One-dimensional ones are drawn against time, with the labels beneath; of others the first
        two or three coordinates are.
        """
        from polycode_plugins.metrics.action.trajectory_plot import draw

        return draw(self, n)

    def save(self, path: str | os.PathLike[str], *, pdf: bool = False) -> Path:
        """Write a .npz file for `numpy.load` and, with `pdf`, the plot beside it.

        Its arrays are named as the attributes; nothing in it is pickled.

        Raises:
            StateError: where they cannot be written.
        """
        target = given(path)
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "labels"}
        if self.labels is not None:
            arrays["labels"] = np.array(json.dumps(self.labels))

        def write(draft: Path) -> None:
            with draft.open("wb") as file:
                np.savez(file, **arrays)

        _write(target, write)
        if pdf:
            from polycode_plugins.metrics.action.trajectory_plot import write_pdf

            _write(target.with_suffix(".pdf"), lambda draft: write_pdf(self, draft))
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trajectories:
        """Read what `save` wrote.

        Raises:
            StateError: for a file that is missing, damaged, or holds something else.
        """
        try:
            # Opened here, since numpy leaves a damaged archive open.
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
                labels = json.loads(str(file["labels"])) if "labels" in file else None
                return cls(
                    points=file["points"],
                    index=file["index"],
                    actions=file["actions"],
                    expected=float(file["expected"]),
                    width=int(file["width"]),
                    seed=int(file["seed"]),
                    labels=None if labels is None else tuple(labels),
                )
        except (
            OSError,
            ValueError,
            KeyError,
            BadZipFile,
            EOFError,
            TypeError,
            AttributeError,
            MemoryError,
            RecursionError,
        ) as error:
            raise StateError(f"{str(path)!r} holds no trajectories: {error}") from error


def trajectories(
    path: Tensor | NDArray[Any],
    projections: int = 1000,
    dimensions: int = 3,
    *,
    keep: int | None = None,
    seed: int = 0,
    labels: Sequence[str] | None = None,
) -> Trajectories:
    """The path [time, width] in `projections` seeded random projections to `dimensions`.

    Args:
        path: activations at successive time steps; any floating type. Leave out masked positions,
            the beginning-of-text token above all: its activations dwarf the others'.
        keep: keep only the trajectories of the `keep` smallest actions; None keeps all.
        seed: projection i depends on the seed, i, width and dimensions alone. The global random
            state is neither used nor changed.
        labels: one text for each time step, for plots.

    Raises:
        DataError: for a path of fewer than two steps or with NaN, numbers out of range, and
            trajectories that would need more than 1 GiB.
    """
    values = as_matrix(path, "path")
    time, width = values.shape
    for name, value in (("projections", projections), ("dimensions", dimensions)):
        if not isinstance(value, int) or value < 1:
            raise DataError(f"{name} must be a whole number above 0, not {value!r}")
    if keep is not None and not 1 <= keep <= projections:
        raise DataError(f"keep is from 1 to {projections} (projections), or None, not {keep!r}")
    if not isinstance(seed, int) or seed < 0:
        raise DataError(f"seed must be a whole number from 0, not {seed!r}")
    if time < 2:
        raise DataError("the path has a single time step, which has no action; pass at least 2")
    if labels is not None and len(labels) != time:
        raise DataError(f"{len(labels)} labels do not fit {time} time steps; give one for each")
    size = (keep or projections) * time * dimensions * 8
    if size > MAX_KEPT_BYTES:
        raise DataError(
            f"the trajectories would take {size / 2**30:.1f} GiB; keep fewer with keep="
        )
    kept: list[Floats] = []
    actions = np.empty(projections)
    every = range(projections)
    for indices, points in projected(values, every, dimensions, seed):
        steps = np.diff(points, axis=1)
        actions[indices.start : indices.stop] = 0.5 * (steps**2).sum(axis=(1, 2))
        if keep is None:
            kept.append(points)
    index = np.arange(projections)
    if keep is not None:
        index = np.argsort(actions, kind="stable")[:keep]
        kept = [points for _, points in projected(values, index.tolist(), dimensions, seed)]
    return Trajectories(
        points=np.concatenate(kept),
        index=index.astype(np.int64),
        actions=actions,
        expected=theory.expected_action(values, dimensions),
        width=width,
        seed=seed,
        labels=None if labels is None else tuple(labels),
    )


def projected(
    path: Tensor, wanted: Sequence[int], dimensions: int, seed: int
) -> Iterator[tuple[range, Floats]]:
    """(places in `wanted`, points [n, time, k]) of the projections wanted, in parts."""
    time, width = path.shape
    count = max(1, CHUNK_VALUES // (max(width, time) * dimensions))
    for start in range(0, len(wanted), count):
        part = wanted[start : start + count]
        drawn = np.concatenate([_projection(seed, i, width, dimensions) for i in part], axis=1)
        seen: Floats = (path @ torch.from_numpy(drawn).to(path.device)).cpu().numpy()
        points = rearrange(seen, "time (n k) -> n time k", k=dimensions)
        yield range(start, start + len(part)), points


def _projection(seed: int, index: int, width: int, dimensions: int) -> Floats:
    drawn = np.random.default_rng((STREAM, seed, index)).standard_normal((width, dimensions))
    scaled: Floats = drawn / width**0.5
    return scaled


def as_matrix(values: Any, name: str) -> Tensor:
    """[time, features] as float64, finite."""
    ndim = np.ndim(values)
    if ndim != 2:
        raise DataError(
            f"the {name} has {ndim} axes; pass a matrix [time, features] (one text, or all frames "
            "with their features side by side)"
        )
    batch = as_activations(values, axes=("batch", "feature"))
    check_finite(batch, name)
    return batch.values.double()


def _write(target: Path, writer: Callable[[Path], Any]) -> None:
    """Let a file appear whole or not at all."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            writer(draft)
            os.replace(draft, target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise StateError(f"cannot write {str(target)!r}: {error}") from error
