"""Decompositions of symmetric matrices, by what is fastest where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def eigen(matrix: Tensor, *, vectors: bool) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues, ascending, and eigenvectors in columns of a symmetric matrix.

    On the CPU by numpy's LAPACK, which takes two thirds as long as torch's.
    """
    if matrix.device.type != "cpu":
        return torch.linalg.eigh(matrix) if vectors else (torch.linalg.eigvalsh(matrix), None)
    if not vectors:
        return torch.from_numpy(np.linalg.eigvalsh(matrix.numpy())), None
    values, basis = np.linalg.eigh(matrix.numpy())
    return torch.from_numpy(values), torch.from_numpy(basis)


def descending(values: Tensor, rank: int) -> Tensor:
    """The largest `rank` of ascending eigenvalues of a covariance, largest first, none negative."""
    # Rounding leaves zero eigenvalues at +-1e-16 of the largest; a variance is not negative.
    return values.flip(0)[:rank].clamp_min(0.0)


def leading(matrix: NDArray[np.float64], *, of_rows: bool = False) -> Tensor | None:
    """float64 [width]: the unit eigenvector of the largest eigenvalue, by Lanczos iteration.

    Its sign makes the entry of largest magnitude positive. None for three features or fewer, and
    where eigenvalues are next to equal: then all eigenvectors are needed to tell.

    matrix: [width, width], or with `of_rows` the rows [n, width] whose products it is.
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    width = matrix.shape[1]
    if width <= 3:
        return None
    start = np.random.default_rng(width).standard_normal(width)
    products: Any = matrix
    if of_rows:
        products = LinearOperator(
            (width, width), matvec=lambda x: matrix.T @ (matrix @ x), dtype=matrix.dtype
        )
    try:
        _, found = eigsh(products, k=1, which="LA", v0=start, tol=1e-10)
    except ArpackError:
        return None
    # The last digits depend on where in memory the iteration works.
    vector = torch.from_numpy(found[:, 0].round(12))
    return vector * torch.sign(vector[vector.abs().argmax()])
