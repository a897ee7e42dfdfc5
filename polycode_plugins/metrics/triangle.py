"""A symmetric matrix as the panels of its lower triangle: half the memory, products at full speed.

A panel holds the rows `start` to `stop` of the matrix up to column `stop`, [stop - start, stop]. Of
its last square only the lower triangle is valid.
"""

from __future__ import annotations

import torch
from torch import Tensor


def spans(width: int) -> list[tuple[int, int]]:
    """The rows of each panel."""
    size = _panel(width)
    return [(start, min(start + size, width)) for start in range(0, width, size)]


def size(width: int) -> int:
    """Elements of all panels."""
    return sum((stop - start) * stop for start, stop in spans(width))


def symmetric(panels: list[Tensor]) -> Tensor:
    """The full symmetric matrix [width, width]; the one that is made."""
    width = panels[-1].shape[1]
    full = panels[-1].new_empty(width, width)
    for panel in panels:
        rows, stop = panel.shape
        start = stop - rows
        full[start:stop, :start] = panel[:, :start]
        full[:start, start:stop] = panel[:, :start].T
        corner = panel[:, start:]  # of which the lower triangle is valid
        full[start:stop, start:stop] = torch.tril(corner) + torch.tril(corner, -1).T
    return full


def diagonal(panels: list[Tensor]) -> Tensor:
    """The diagonal, [width]."""
    return torch.cat([panel[:, panel.shape[1] - len(panel) :].diagonal() for panel in panels])


def packed(panels: list[Tensor]) -> Tensor:
    """The lower triangle on the CPU, row by row without the rest, [width * (width + 1) / 2]."""
    width = panels[-1].shape[1]
    packed = torch.empty(width * (width + 1) // 2, dtype=torch.float64)
    at = 0
    for panel in panels:
        rows, stop = panel.shape
        lower = torch.tril(torch.ones(rows, stop, dtype=torch.bool), stop - rows)
        values = panel.cpu()[lower]
        packed[at : at + len(values)] = values
        at += len(values)
    return packed


def unpacked(packed: Tensor, width: int) -> list[Tensor]:
    """The panels whose lower triangle `packed` gave."""
    panels, at = [], 0
    for start, stop in spans(width):
        panel = torch.zeros(stop - start, stop, dtype=torch.float64)
        lower = torch.tril(torch.ones(stop - start, stop, dtype=torch.bool), start)
        count = (stop * (stop + 1) - start * (start + 1)) // 2
        panel[lower] = packed[at : at + count]
        panels.append(panel)
        at += count
    return panels


def _panel(width: int) -> int:
    """Columns of a panel of the symmetric update, which takes (1 + panel / width) / 2 of the full
    one: fewer for narrow layers, and not so few that the product gets slow."""
    return min(192, max(96, width // 8))
