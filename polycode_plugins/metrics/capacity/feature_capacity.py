"""Capacity of features in a model's weights: how much of a dimension each feature has to itself.

Scherlis et al. 2022: C_i = (w_i.w_i)^2 / sum_j (w_i.w_j)^2 in [0, 1] for embedding vectors w_i
[dimensions]. 1 means a dimension of one's own (monosemantic), less means sharing, 0 means ignored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polycode_plugins.errors import DataError
from polycode_plugins.metrics.base import Result
from polycode_plugins.theory import Blocks, find_blocks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Side = Literal["rows", "columns"]

#: Features that have at least this much of a dimension count as monosemantic.
ALONE = 0.99
#: Blocks come from all pairs of features; more of them than this do not fit into memory.
MOST_IN_BLOCKS = 4096
CHUNK_VALUES = 8_000_000  # float64 values of a work array: 64 MB
# Below this share of the total, rounding of a feature's interference could be larger than itself.
FAINT = 1e-10


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureCapacity(Result):
    """Capacities of all features of one matrix.

    Attributes:
        capacities: float64 [features] in [0, 1]; 0 for a feature whose vector is zero.
        dimensions: of the space that the features share.
        name: of the matrix.
        features_are: "rows" or "columns" of the matrix as it is stored.
        zero: how many features have a vector of zeros.
        blocks: groups of features that interfere with each other and nobody else; None unless
            asked for.
    """

    reading: ClassVar[str] = (
        "A capacity of 1 is a feature with a dimension to itself, a smaller one a feature that "
        "shares its dimensions; all capacities together are at most the number of dimensions. "
        "Directions drawn at random, which nobody arranged, share evenly: compare with their value."
    )

    capacities: Floats
    dimensions: int
    name: str = "matrix"
    features_are: Side = "rows"
    zero: int = 0
    blocks: Blocks | None = None

    @classmethod
    def measure(
        cls,
        matrix: Tensor | NDArray[Any],
        *,
        features: Side = "rows",
        name: str = "matrix",
        blocks: bool = False,
        tolerance: float = 0.01,
    ) -> FeatureCapacity:
        """Capacities of the features of a matrix.

        Takes 4 n d^2 operations in float64 for n features in d dimensions (2 n^2 d if n < d), on
        the matrix's own device where that has float64, and d^2 numbers and some 250 MB of memory.

        Args:
            matrix: two axes, any floating type; one vector for each feature.
            features: whether the feature's vectors are its "rows" [features, dimensions] or its
                "columns" [dimensions, features].
            name: what results and errors call it.
            blocks: also find the blocks, for at most `MOST_IN_BLOCKS` features.
            tolerance: of the blocks, see `theory.find_blocks`.

        Raises:
            DataError: for anything but a finite matrix with a non-zero entry, or for blocks of too
                many features.
        """
        if features not in ("rows", "columns"):
            raise DataError(f"features is 'rows' or 'columns' of the matrix, not {features!r}")
        rows = _checked(matrix, name)
        rows = rows if features == "rows" else rows.T
        if blocks and len(rows) > MOST_IN_BLOCKS:
            raise DataError(
                f"{name} has {len(rows)} features and blocks are found among all pairs of them, "
                f"for at most {MOST_IN_BLOCKS}; leave blocks out or pass part of the matrix"
            )
        capacities, squared = _capacities(rows)
        return cls(
            capacities=capacities,
            dimensions=rows.shape[1],
            name=name,
            features_are=features,
            zero=int((squared == 0).sum()),
            blocks=find_blocks(rows, tolerance) if blocks else None,
        )

    @property
    def features(self) -> int:
        """Number of features."""
        return int(self.capacities.size)

    @property
    def total(self) -> float:
        """Sum of the capacities, at most `bound`."""
        return float(self.capacities.sum())

    @property
    def mean(self) -> float:
        """Mean capacity of a feature."""
        return self.total / self.features

    @property
    def bound(self) -> int:
        """The most the capacities can sum to: the smaller of features (but zeros) and dimensions.

        Reached exactly if the embedding is block-semi-orthogonal and of full rank.
        """
        return min(self.features - self.zero, self.dimensions)

    @property
    def used(self) -> float:
        """`total` / `bound`: share of the dimensions that is used without interference."""
        return self.total / self.bound

    @property
    def monosemantic(self) -> float:
        """Share of the features with a capacity of at least 0.99."""
        return float(np.mean(self.capacities >= ALONE))

    @property
    def random(self) -> float:
        """Capacity of features in random directions of equal length: d / (d + n - 1).

        From the expected interference of n - 1 others, each 1/d.
        """
        n = self.features - self.zero
        return self.dimensions / (self.dimensions + n - 1)

    def histogram(self, bins: int = 50) -> tuple[NDArray[np.int64], Floats]:
        """Counts [bins] of capacities, and the edges [bins + 1] between 0 and 1."""
        counts, edges = np.histogram(self.capacities, bins=bins, range=(0.0, 1.0))
        return counts.astype(np.int64), edges

    def scalars(self) -> dict[str, float | int | str | bool | None]:
        """What fits into a table."""
        found = self.blocks
        return {
            "mean_capacity": self.mean,
            "total_capacity": self.total,
            "used": self.used,
            "monosemantic": self.monosemantic,
            "random": self.random,
            "features": self.features,
            "dimensions": self.dimensions,
            "zero": self.zero,
            "features_are": self.features_are,
            "blocks": len(found.blocks) if found else None,
            "block_semi_orthogonal": found.block_semi_orthogonal if found else None,
        }

    def plot(
        self, ax: Axes | None = None, *, kind: Literal["sorted", "histogram"] = "sorted"
    ) -> Axes:
        """Capacities in descending order, or their histogram, beside that of random directions."""
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(layout="constrained")
        if kind == "histogram":
            counts, edges = self.histogram()
            ax.stairs(counts, edges, fill=True, color="#4c72b0")
            ax.axvline(self.random, color="#8c8c8c", ls="--", label="random directions")
            ax.set_xlabel("capacity")
            ax.set_ylabel("features")
        elif kind == "sorted":
            ordered = np.sort(self.capacities)[::-1]
            ax.plot(np.arange(1, ordered.size + 1), ordered, color="#4c72b0", label=self.name)
            ax.axhline(self.random, color="#8c8c8c", ls="--", label="random directions")
            ax.set_xlabel("features, by capacity")
            ax.set_ylabel("capacity")
            ax.set_ylim(0, 1.02)
        else:
            raise DataError(f"kind is 'sorted' or 'histogram', not {kind!r}")
        ax.legend(frameon=False)
        return ax


def _checked(matrix: Tensor | NDArray[Any], name: str) -> Tensor:
    """The matrix as a detached tensor, on a device that has float64."""
    try:
        weights = torch.as_tensor(matrix).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name} is no matrix of numbers ({error}); pass a tensor") from error
    if weights.dim() != 2 or weights.numel() == 0:
        raise DataError(
            f"{name} has shape {tuple(weights.shape)} and a matrix of features has two axes, "
            "[features, dimensions]; reshape it or pass one layer or head of it"
        )
    if weights.is_complex():
        raise DataError(f"{name} is complex; pass real vectors")
    if weights.device.type not in ("cpu", "cuda"):
        weights = weights.cpu()
    largest = _largest(weights)
    if not math.isfinite(largest):
        raise DataError(f"{name} holds NaN or infinite values; find them before measuring")
    if largest == 0:
        raise DataError(f"{name} is zero everywhere, so no feature is represented; leave it out")
    return weights


def _largest(weights: Tensor) -> float:
    """Magnitude of the largest entry; NaN where there is one. Copies nothing."""
    low, high = torch.aminmax(weights)
    return max(abs(float(low)), abs(float(high)))


def _capacities(rows: Tensor) -> tuple[Floats, Floats]:
    """Capacities [n] and squared norms [n], in the unit of the largest entry, of rows [n, d].

    sum_j (w_i.w_j)^2 = w_i^T (sum_j w_j w_j^T) w_i, so no n x n matrix is needed.
    """
    n, d = rows.shape
    scale = _largest(rows)
    chunks = torch.split(rows, max(1, CHUNK_VALUES // d))
    moment = None
    if n > d:
        moment = rows.new_zeros((d, d), dtype=torch.float64)
        for chunk in chunks:
            part = _scaled(chunk, scale)
            moment.addmm_(part.T, part)
    capacities, norms = [], []
    for chunk in chunks:
        unit = _scaled(chunk, scale)
        squared = unit.square().sum(dim=1)
        unit /= squared.sqrt().clamp_min(torch.finfo(torch.float64).tiny)[:, None]
        if moment is None:
            interference = _interference(unit, rows, scale)
        else:
            interference = (unit @ moment).mul_(unit).sum(dim=1)
            faint = (squared > 0) & (squared < FAINT * moment.trace())
            if bool(faint.any()):
                interference[faint] = _interference(unit[faint], rows, scale)
        found = torch.where(squared > 0, squared / interference, 0.0).clamp(max=1.0)
        capacities.append(found.cpu())
        norms.append(squared.cpu())
    return torch.cat(capacities).numpy(), torch.cat(norms).numpy()


def _interference(unit: Tensor, rows: Tensor, scale: float) -> Tensor:
    """sum_j (u_i.w_j)^2 pair by pair, for few features or those that rounding would drown."""
    total = torch.zeros(len(unit), dtype=torch.float64, device=unit.device)
    for chunk in torch.split(rows, max(1, CHUNK_VALUES // max(len(unit), rows.shape[1]))):
        total += (unit @ _scaled(chunk, scale).T).square_().sum(dim=1)
    return total


def _scaled(chunk: Tensor, scale: float) -> Tensor:
    """A float64 copy, so that squares neither overflow nor vanish."""
    return chunk.to(torch.float64, copy=True).div_(scale)
