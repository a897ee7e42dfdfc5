"""Which positions of a tensor count: by the data's mask, or by all that a call was given."""

from __future__ import annotations

from torch import Tensor

from polycode_plugins.adapters.evidence.calls import Call
from polycode_plugins.adapters.evidence.masks import Counted, counted, on_host
from polycode_plugins.adapters.text import regular
from polycode_plugins.errors import DataError

_ENDED = "what follows the end of a text"


def counted_of_batch(mask: Tensor, rows: int | None, positions: int | None) -> Counted:
    """What counts by the mask [batch] or [batch, position] that the data came with.

    Raises:
        DataError: where it leaves something out and does not fit.
    """
    if bool(mask.all()):
        return Counted()
    fits = rows == mask.shape[0] and (mask.dim() == 1 or positions in (None, mask.shape[1]))
    if not fits:
        shape = ", ".join(str(n) for n in (rows, positions) if n is not None) or "unknown rows"
        raise DataError(
            f"the mask {tuple(mask.shape)} of the batch does not fit, since there are ({shape}) "
            "here; leave the site out, or give data without padding"
        )
    return Counted(mask, "the data")


def counted_of_call(
    call: Call,
    rows: int | None,
    positions: int | None,
    *,
    special: list[int],
    ended: Tensor | None,
) -> Counted:
    """What counts in somebody else's workflow.

    Args:
        call: of the module.
        rows: of the tensor. positions: of it; None where it has none.
        special: ids of tokens that do not count.
        ended: bool [rows], the texts that are generated and have ended while others go on.
    """
    what = counted(call, rows, positions)
    if ended is not None and rows == len(ended):
        going_on = ~ended if positions is None else ~ended[:, None].expand(-1, positions)
        what = _both(what, going_on, _ENDED)
    regular_ones = _regular(call, rows, positions, special)
    return what if regular_ones is None else _both(what, regular_ones, "special tokens")


def _both(what: Counted, counts: Tensor, why: str) -> Counted:
    if what.mask is None:
        return Counted(counts, why)
    return Counted(what.mask & counts.to(what.mask.device), f"{what.why} and {why}")


def _regular(
    call: Call, rows: int | None, positions: int | None, special: list[int]
) -> Tensor | None:
    """Which positions hold no special token; None where that says nothing."""
    for around_it in call.outwards() if special else ():
        tokens = around_it.arguments.get("input_ids")
        if isinstance(tokens, Tensor) and tokens.dim() == 2:
            counts = regular(on_host(tokens, call), special)
            if counts is None or rows != len(counts):
                return None
            if positions is None:
                return counts.any(dim=1)
            return counts if counts.shape[1] == positions else None
    return None
