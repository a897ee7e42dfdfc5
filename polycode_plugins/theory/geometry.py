"""Geometry of an embedding: its blocks, and the polytopes that blocks settle into.

Why blocks: with M = W^T W, Cauchy-Schwarz gives C_i <= w_i^T M^-1 w_i, so the capacities sum to at
most the rank of W, with equality exactly if every w_i is an eigenvector of M. Features in different
eigenspaces are then orthogonal, and within one the features satisfy W_b^T W_b = level * projector:
W_b is semi-orthogonal (a tight frame). So a block of mutually interfering features uses its own
dimensions fully if and only if it is semi-orthogonal, with no rescaling of its vectors.
Source: Scherlis et al. 2022 (geometry of the embedding: block-semi-orthogonal structure).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from polycode_plugins.errors import DataError
from polycode_plugins.theory._arguments import Array, Floats, array, choice, number
from polycode_plugins.theory.features import feature_capacity

Polytope: TypeAlias = Literal["pair", "triangle", "tetrahedron", "pentagon", "square antiprism"]


@dataclass(frozen=True)
class Block:
    """Features that interfere with each other, directly or through others, and with no one else.

    features: their indices, ascending.
    dimension: rank of their vectors, the dimensions that are the block's own.
    capacity: sum of their capacities, at most `dimension` (but for leaks below the tolerance).
    spread: (largest - smallest) / mean of the non-zero eigenvalues of W_b^T W_b; 0 if the block is
      semi-orthogonal.
    saturated: capacity equals dimension, to a relative `tolerance`.
    semi_orthogonal: spread is at most `tolerance`. It is the sharper test of the two, for a
      small distortion changes the spread in first order and the capacity in second.
    """

    features: tuple[int, ...]
    dimension: int
    capacity: float
    spread: float
    saturated: bool
    semi_orthogonal: bool


@dataclass(frozen=True)
class Blocks:
    """The blocks of an embedding.

    blocks: largest first; ties in the order of their first feature.
    ignored: features whose norm is at most `tolerance` times the largest.
    dimensions: of the embedding space; the blocks' own dimensions sum to at most this.
    tolerance: that was used.
    """

    blocks: tuple[Block, ...]
    ignored: tuple[int, ...]
    dimensions: int
    tolerance: float

    @property
    def block_semi_orthogonal(self) -> bool:
        """Whether every block is semi-orthogonal and saturated: the structure of the optimum."""
        return all(block.semi_orthogonal and block.saturated for block in self.blocks)


def find_blocks(embedding: Array, tolerance: float = 0.01) -> Blocks:
    """Blocks of an embedding [features, dimensions], and whether each is semi-orthogonal.

    Blocks are the connected components of the graph that joins features with
    |cos(w_i, w_j)| > `tolerance`. The same tolerance decides which features are ignored (norm
    relative to the largest), the rank of a block (singular value relative to its largest) and the
    two claims of `Block`; it lies in (0, 0.99], above the noise of a trained embedding.
    Raises `DataError` for an embedding of zeros.
    """
    w = array(embedding, "embedding", 2)
    tol = number(tolerance, "tolerance", 0, 0.99, open_low=True)
    norm = np.linalg.norm(w, axis=1)
    if norm.max() == 0:
        raise DataError("embedding is zero everywhere, so it has no blocks; pass a trained one.")
    used = np.flatnonzero(norm > tol * norm.max())
    capacity = feature_capacity(w)
    blocks = [_block(w, capacity, members, tol) for members in _components(w, norm, used, tol)]
    blocks.sort(key=lambda block: (-len(block.features), block.features))
    ignored = np.setdiff1d(np.arange(len(w)), used)
    return Blocks(tuple(blocks), tuple(ignored.tolist()), w.shape[1], tol)


def _components(w: Floats, norm: Floats, used: np.ndarray, tol: float) -> list[np.ndarray]:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    unit = w[used] / norm[used, None]
    number_of, labels = connected_components(csr_array(abs(unit @ unit.T) > tol), directed=False)
    return [used[labels == label] for label in range(number_of)]


def _block(w: Floats, capacity: Floats, members: np.ndarray, tol: float) -> Block:
    singular = np.linalg.svd(w[members], compute_uv=False)
    level = singular[singular > tol * singular[0]] ** 2
    total = float(capacity[members].sum())
    spread = float((level[0] - level[-1]) / level.mean())
    return Block(
        features=tuple(members.tolist()),
        dimension=len(level),
        capacity=total,
        spread=spread,
        saturated=abs(total - len(level)) <= tol * len(level),
        semi_orthogonal=spread <= tol,
    )


def polytope(name: Polytope) -> Floats:
    """Unit vectors [features, dimensions] of a polytope that sharing features settle into.

    Each vertex has capacity dimensions / features: pair 1/2, triangle 2/3, tetrahedron 3/4,
    pentagon 2/5, square antiprism 3/8 (the "sticky" values of figure 1c). The antiprism is the one
    that is a tight frame (height 2/sqrt(3)), which is not the one with edges of equal length.
    Source: Elhage et al. 2022; Scherlis et al. 2022.
    """
    known = ("pair", "triangle", "tetrahedron", "pentagon", "square antiprism")
    choice(name, "name", known)
    if name == "pair":
        return np.array([[1.0], [-1.0]])
    if name == "tetrahedron":
        corners = [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
        return np.asarray(corners / np.sqrt(3))
    if name == "square antiprism":
        turn = np.arange(8) * np.pi / 4
        flat = np.stack([np.cos(turn), np.sin(turn)], axis=1) * np.sqrt(2 / 3)
        return np.column_stack([flat, (-1.0) ** np.arange(8) / np.sqrt(3)])
    turn = 2 * np.pi * np.arange(3 if name == "triangle" else 5) / (3 if name == "triangle" else 5)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)
