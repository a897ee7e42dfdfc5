"""A sketch of activations, their projection to a few random directions, and its sums by groups."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.devices import moved
from polycode_plugins.metrics.spectrum.rows.correlation import GROUPS

SKETCH = 32  # directions
FLOAT32_SPREAD = 1e-4  # of variances; float32 products leave 1e-7 of the strongest as noise


def steep(products: Tensor) -> bool:
    """Whether float32 has lost the weakest directions beside the strongest: a few rows far from all
    others, as the first token of a text may be, are enough."""
    spread = torch.linalg.eigvalsh(products)
    return bool(spread[0] < FLOAT32_SPREAD * spread[-1])


def sums_by_group(values: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Samples, their sum and their products in each group, float64.

    Args:
        values: [samples, sketch].
        groups: int32 [2 samples] on the CPU, the groups by document and then those by sample.
    """
    n, size = values.shape
    names = groups.numpy().astype(np.uint8)  # the sort of such small numbers is fast
    counts = np.bincount(names, minlength=2 * GROUPS)
    order = np.argsort(names, kind="stable")
    # Each group fills as many slabs of samples as it needs, the last of them up with zeros: a slab
    # is a matrix product, and all of them are one call.
    slab = max(8, 5 * n // (4 * GROUPS))
    slabs = -(-counts // slab)
    first = slab * (np.cumsum(slabs) - slabs)
    place = np.arange(2 * n) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    source = np.full(slab * slabs.sum(), n)
    source[place] = order % n
    values = torch.cat([values, values.new_zeros(1, size)])
    lines = moved(torch.from_numpy(source), values.device)
    held = values.index_select(0, lines).reshape(-1, slab, size)
    owner = moved(torch.from_numpy(np.repeat(np.arange(2 * GROUPS), slabs)), values.device)
    sums = values.new_zeros(2 * GROUPS, size, dtype=torch.float64)
    products = values.new_zeros(2 * GROUPS, size, size, dtype=torch.float64)
    sums.index_add_(0, owner, held.sum(dim=1).double())
    products.index_add_(0, owner, (held.transpose(1, 2) @ held).double())
    return torch.from_numpy(counts), sums, products


def basis_of(width: int) -> Tensor:
    """[width, sketch] the same for every accumulator of a width; all directions where few."""
    if width <= SKETCH:
        return torch.eye(width, dtype=torch.float64)
    drawn = np.random.default_rng(width).standard_normal((SKETCH, width)) / np.sqrt(width)
    return torch.from_numpy(drawn).T.contiguous()
