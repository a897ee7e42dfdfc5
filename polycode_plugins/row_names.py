"""Names of rows by what they hold, so that a repeated row is known wherever it comes again."""

from __future__ import annotations

import torch
from torch import Tensor

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32}  # by bytes
SPAN = 256  # values of a row that are summed at a time to tell it from others


def content(values: Tensor) -> Tensor:
    """int64 [rows]: equal for equal rows [rows, values], and for others as good as never."""
    if values.dtype in (torch.float64, torch.int64):
        values = values.float() if values.is_floating_point() else values.view(torch.int32)
    values = values.to(torch.uint8) if values.dtype == torch.bool else values
    bits = values.contiguous().view(INTEGERS[values.element_size()])
    whole = bits.shape[1] // SPAN * SPAN
    table = bits[:, :whole].reshape(len(bits), -1, SPAN)
    # Sums along both sides of a table, modulo 2^32, tell where a value is and take no memory.
    sums = [table.sum(dim, dtype=torch.int32) for dim in (1, 2)]
    found = torch.cat([*sums, bits[:, whole:]], dim=1).cpu().to(torch.int64)
    return (found * mixed(torch.arange(1, found.shape[1] + 1), 2**62)).sum(dim=1)


def mixed(names: Tensor, size: int) -> Tensor:
    """Spread integers evenly over `size` values: Steele, Lea & Flood's SplitMix, low bits."""
    found = names
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        found = (found ^ (found >> shift)) * factor
    return (found ^ (found >> 31)) % size


class Repeats:
    """The rows of a stream that have come before.

    A row that comes again is no new document: its activations are those of the first time.
    """

    def __init__(self) -> None:
        self._first: dict[int, int] = {}

    def documents(self, names: Tensor, numbers: Tensor) -> Tensor | None:
        """int64 [rows]: the number of the first row of the same content; None where all are new.

        Args:
            names: int64 [rows], see `content`.
            numbers: int64 [rows], places of the rows in the stream.
        """
        pairs = zip(names.tolist(), numbers.tolist(), strict=True)
        found = [self._first.setdefault(name, number) for name, number in pairs]
        return None if found == numbers.tolist() else torch.tensor(found)

    def first(self, name: int, number: int) -> int:
        """The number of the first that had this name; `number` where this is it."""
        return self._first.setdefault(name, number)
