"""The axes of what TransformerLens's hook points hold, by their names: for every way in."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from polycode_plugins.errors import DataError, SiteError

_WEIGHTS = re.compile(r"(pattern|attn_scores|hook_(cos|sin)$)")


def holds_weights(name: str) -> bool:
    """Whether a hook point holds attention weights or rotations."""
    return _WEIGHTS.search(name) is not None


def hook_axes(name: str, values: Any, point: Any = None) -> tuple[str, ...]:
    """The axes of what a hook point holds.

    Args:
        name: of the hook point.
        values: what it holds.
        point: the HookPoint; TransformerLens 4 notes in `pos_dim` where positions are not second.

    Raises:
        DataError: for attention weights.
        SiteError: for what is no floating-point tensor of 2, 3 or 4 axes.
    """
    if holds_weights(name):
        raise DataError(
            f"{name!r} holds attention weights, not the activations of units; choose others, for "
            "example sites='**.hook_resid_post'"
        )
    if not isinstance(values, Tensor) or not values.is_floating_point():
        what = f"{values.dtype} values" if isinstance(values, Tensor) else type(values).__name__
        raise SiteError(f"{name!r} holds {what}, not floating-point activations; leave it out")
    place = getattr(point, "pos_dim", None)
    late = place is not None and place % values.dim() == 2
    axes: dict[int, tuple[str, ...]] = {
        2: ("batch", "feature"),
        3: ("batch", "feature", "position") if late else ("batch", "position", "feature"),
        4: ("batch", *(("head", "position") if late else ("position", "head")), "feature"),
    }
    if values.dim() not in axes:
        raise SiteError(
            f"{name!r} has shape {tuple(values.shape)}, and the activations of units are [batch, "
            "feature], [batch, position, feature] or [batch, position, head, feature]; leave it out"
        )
    return axes[values.dim()]
