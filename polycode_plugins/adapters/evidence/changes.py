"""Inputs that are changed along a dimension, and where outputs differ for it."""

from __future__ import annotations

import torch
from torch import Tensor


def told_apart(values: Tensor) -> Tensor:
    """Numbers that differ along every axis, so that a repeated row is no copy."""
    if not values.is_floating_point() or values.is_meta:
        return values
    wave = torch.arange(values.numel(), device=values.device, dtype=torch.float32)
    return values + 0.1 * torch.sin(wave * 1.7).reshape(values.shape).to(values.dtype)


def altered(values: Tensor, dim: int) -> Tensor:
    """The same with what lies in the middle of a dimension changed."""
    values = values.clone()
    part = values.select(dim, values.shape[dim] // 2)
    if values.is_floating_point():
        wave = torch.arange(part.numel(), device=values.device, dtype=torch.float32)
        part += (0.5 + torch.cos(wave * 2.3)).reshape(part.shape).to(values.dtype)
    elif values.dtype == torch.bool:
        part.logical_not_()
    else:  # a neighbouring token, which the vocabulary has
        part += torch.where(part > 0, -1, 1).to(values.dtype)
    return values


def differing(a: Tensor, b: Tensor, dim: int, noise: float = 1e-6) -> set[int]:
    """Indices along `dim` at which two tensors differ by more than `noise` of the largest value."""
    a, b = (t.detach().double().nan_to_num(0, 0, 0).movedim(dim, 0).flatten(1) for t in (a, b))
    scale = float(a.abs().max()) or 1.0
    return set(((a - b).abs().amax(dim=1) > noise * scale).nonzero().flatten().tolist())


def entries(size: int, count: int, index: int) -> tuple[set[int], set[int]]:
    """Where the entries of one of `count` rows are in an axis of all: side by side, or spread."""
    each = size // count
    return set(range(index * each, (index + 1) * each)), set(range(index, size, count))
