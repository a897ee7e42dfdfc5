"""A symmetric matrix as the panels of its lower triangle: half the memory, products at full speed.

A panel holds the rows `start` to `stop` of the matrix up to column `stop`, [stop - start, stop]. Of
its last square only the lower triangle is valid.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

_CACHED = 2**19  # values that stay in the cache from one operation on them to the next
_LEAST = 256  # rows that are worth a product of their own
_WIDEST = 2048  # above it the whole matrix takes too much room for the little that it saves
_limiting = threading.Lock()


def spans(width: int) -> list[tuple[int, int]]:
    """The rows of each panel."""
    size = _panel(width)
    return [(start, min(start + size, width)) for start in range(0, width, size)]


def size(width: int) -> int:
    """Elements of all panels."""
    return sum((stop - start) * stop for start, stop in spans(width))


def add_products(panels: list[Tensor], rows: Tensor) -> None:
    """Add rows' rows, of float64 or float32 rows [n, width], to float64 panels."""
    for panel in panels:
        count, stop = panel.shape
        left = rows[:, stop - count : stop].T
        if rows.dtype == torch.float64:
            panel.addmm_(left, rows[:, :stop])
        else:
            panel.add_(left @ rows[:, :stop])


class Products:
    """Sums of rows' rows that are added to panels.

    On the CPU and with one thread they come of the symmetric product of BLAS, which makes one
    triangle and no more: a fifth to a third less time than products of panels in float64, and a
    tenth less in float32. Torch has none. With several threads those of BLAS would be of another
    pool than torch's, and the threads of either spin while they wait for work. It takes a matrix
    [width, width] meanwhile.

    Args:
        panels: float64, on the device of the rows.
        dtype: of the products, float64 or float32.
        most: rows over which products are summed in `dtype`.

    Attributes:
        rows: how many at a time are best.
    """

    def __init__(self, panels: list[Tensor], dtype: torch.dtype, most: int) -> None:
        self._panels, self._most = panels, most
        self._double = dtype == torch.float64
        self._width = width = panels[-1].shape[1]
        ours = type(panels[-1]) is Tensor and panels[-1].device.type == "cpu"
        self._blas = ours and width <= _WIDEST and torch.get_num_threads() == 1
        self.rows = min(most, max(_LEAST, _CACHED // width)) if self._blas else most
        self._sums: Any = None  # [width, width], the upper triangle, in Fortran's order
        self._held = 0  # rows in it
        self._beside: list[Tensor] = []

    def add(self, rows: Tensor, beside: Tensor | None) -> None:
        """Take in rows [n, width], and one more, float64 [width]."""
        if not self._blas:
            add_products(self._panels, rows)
            if beside is not None:
                add_products(self._panels, beside[None])
            return
        if self._held + len(rows) > self._most:
            self.finish()
        self._held += len(rows)
        self._add(rows)
        if beside is not None:
            self._beside.append(beside)

    def _add(self, rows: Tensor) -> None:
        from scipy.linalg.blas import dsyrk, ssyrk  # takes a while to import

        if self._sums is None:
            dtype = np.float64 if self._double else np.float32
            self._sums = np.zeros((self._width, self._width), dtype, order="F")
        product = dsyrk if self._double else ssyrk
        columns = rows.contiguous().numpy().T
        with _limiting, blas_threads().limit(limits=1):
            product(1.0, columns, 1.0, self._sums, overwrite_c=1)

    def finish(self) -> None:
        """Add what was summed to the panels."""
        if self._beside:
            beside = torch.stack(self._beside)
            self._beside = []
            if self._double:
                self._add(beside)
            else:
                add_products(self._panels, beside)
        if self._sums is not None:
            whole = torch.from_numpy(self._sums.T)
            for panel in self._panels:
                count, stop = panel.shape
                panel.add_(whole[stop - count : stop, :stop])
        self._sums, self._held = None, 0


@cache
def blas_threads() -> ThreadpoolController:
    """The BLAS of numpy, scipy and torch; to look for them takes longer than a small result."""
    import scipy.linalg.blas  # noqa: F401 - has one of its own, which loads with it

    return ThreadpoolController().select(user_api="blas")


def empty(width: int, device: torch.device) -> list[Tensor]:
    """Panels of zeros."""
    return [
        torch.zeros(stop - start, stop, dtype=torch.float64, device=device)
        for start, stop in spans(width)
    ]


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
