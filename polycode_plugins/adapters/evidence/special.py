"""Padding and special tokens that count because nobody said otherwise: how many there are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from polycode_plugins.adapters.text import regular, special_ids


def counted_special(model: Any, tokens: Any, attention: Any = None) -> int | None:
    """Rows of padding and special tokens among those of a pass; None where it cannot be told.

    Args:
        model: of TransformerLens, which may have a tokenizer.
        tokens: int64 [batch, position], what it reads.
        attention: bool [batch, position], False on padding; None without.
    """
    if not isinstance(tokens, Tensor) or tokens.dim() != 2:
        return None
    counts = regular(tokens, special_ids(getattr(model, "tokenizer", None)))
    if isinstance(attention, Tensor) and attention.shape == tokens.shape:
        real = attention.bool()
        counts = real if counts is None else counts & real.to(counts.device)
    return 0 if counts is None else int((~counts).sum())


def says_special(counted: Mapping[str, int], how: str) -> None:
    """Warn of rows that are padding or special tokens.

    Args:
        counted: how many at each site.
        how: where a mask is given.
    """
    if not any(counted.values()):
        return
    site, most = max(counted.items(), key=lambda item: item[1])
    others = sum(n > 0 for n in counted.values()) - 1
    more = f" (and at {others} other sites)" if others else ""
    warnings.warn(
        f"{most} of the rows at {site!r}{more} are padding or special tokens, the beginning of "
        f"text among them, and count, since no mask says otherwise; give {how} a mask [batch, "
        "position], all True to count them, or use pc.attach, which leaves them out",
        UserWarning,
        stacklevel=3,
    )
