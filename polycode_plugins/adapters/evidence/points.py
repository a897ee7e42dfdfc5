"""The axes of what TransformerLens's hook points hold, for every way in.

A hook point says in `pos_dim` where positions are not second (TransformerLens 4), and what it holds
is compared with the tokens of the pass. Where neither is at hand the names with one layout in every
architecture decide, and all others are asked about.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polycode_plugins.errors import DataError, ModelError, SiteError

_WEIGHTS = re.compile(r"(pattern|attn_scores|hook_(cos|sin)$)")
_GRADIENT = "_grad"  # ends the name of a gradient in a cache
# [batch, position, head, feature] in every architecture.
_HEADS = re.compile(r"hook_(q|k|v|z|rot_q|rot_k|result)$|\.(q|k|v)\.hook_out$")
_NORMS = re.compile(r"(_norm\.|_normed$)")  # of heads, before or after they change places
_OF_DECODERS = re.compile(r"^(encoder|decoder)(_blocks|_ln_final|_pos_embed|_embed)?\.")


def holds_weights(name: str) -> bool:
    """Whether a hook point holds attention weights or rotations."""
    return _WEIGHTS.search(name) is not None


def hook_axes(
    name: str,
    values: Any,
    point: Any = None,
    tokens: Sequence[int] | None = None,
    *,
    check: bool = True,
) -> tuple[str, ...]:
    """The axes of what a hook point holds.

    Args:
        name: of the hook point.
        values: what it holds, its batch axis first.
        point: the HookPoint, where it is at hand.
        tokens: (rows, positions) of the pass, where they are known.
        check: whether it has to have them; else they only tell heads from positions.

    Raises:
        DataError: for attention weights.
        SiteError: for what is no floating-point tensor of 2, 3 or 4 axes, does not have the rows
            and positions of the pass, or can be read in two ways.
    """
    if holds_weights(name):
        raise DataError(
            f"{name!r} holds attention weights, not the activations of units; choose others, for "
            "example sites='**.hook_resid_post'"
        )
    if not isinstance(values, Tensor) or not values.is_floating_point():
        what = f"{values.dtype} values" if isinstance(values, Tensor) else type(values).__name__
        raise SiteError(f"{name!r} holds {what}, not floating-point activations; leave it out")
    if values.dim() not in (2, 3, 4):
        raise SiteError(shapeless(name, values, tokens))
    axes = _axes(name, values, point, tokens)
    if check and tokens is not None and not fits(name, values, axes, tokens):
        raise SiteError(shapeless(name, values, tokens))
    return axes


def _axes(name: str, values: Tensor, point: Any, tokens: Sequence[int] | None) -> tuple[str, ...]:
    heads = _HEADS.search(name.removesuffix(_GRADIENT)) is not None
    if values.dim() == 2:
        return ("batch", "feature")
    place = getattr(point, "pos_dim", None)
    late = place is not None and place % values.dim() == 2
    if values.dim() == 3:
        if late:
            return ("batch", "feature", "position")
        whole = tokens is not None and tuple(values.shape[:2]) == tuple(tokens)
        # A pass of one position, taken out of each row.
        return ("batch", "head", "feature") if heads and not whole else _BY_POSITION
    if place is None and not heads:
        late = _seen_late(name, values, tokens, point)
    return ("batch", *(("head", "position") if late else ("position", "head")), "feature")


_BY_POSITION = ("batch", "position", "feature")


def _seen_late(name: str, values: Tensor, tokens: Sequence[int] | None, point: Any) -> bool:
    """Whether positions are third in a tensor of heads whose hook point does not say it."""
    second, third = values.shape[1:3]
    if tokens is not None and second != third:
        return bool(third == tokens[1])
    # Norms of heads come before or after heads and positions change places. All else is an image,
    # or heads in their usual place.
    if _NORMS.search(name) is None and (tokens is None or point is not None):
        return False
    raise SiteError(
        f"{name!r} has shape {tuple(values.shape)}, and which axis holds the heads and which the "
        "positions is not known without the model; give the cache itself, or name them, for "
        "example axes=('batch', 'head', 'position', 'feature')"
    )


def fits(name: str, values: Tensor, axes: Sequence[str], tokens: Sequence[int]) -> bool:
    """Whether a tensor has the rows and the positions of the tokens of its pass."""
    rows, length = tokens
    if values.shape[0] != rows:
        return False
    if "position" not in axes:
        return True
    places = values.shape[list(axes).index("position")]
    # Some models unembed the last positions only.
    return places == length or (places < length and "unembed" in name)


def shapeless(name: str, values: Tensor, tokens: Sequence[int] | None) -> str:
    """Why a tensor is no activations of units at the rows and positions of a pass."""
    given = "" if tokens is None else f" for tokens of shape {tuple(tokens)}"
    return (
        f"{name!r} has shape {tuple(values.shape)}{given}, and the activations of units are "
        "[batch, feature], [batch, position, feature] or [batch, position, head, feature]; "
        "leave it out"
    )


def refuse_decoder(name: str, model: Any, of: str = "") -> None:
    """Refuse what is of a model with an encoder and a decoder.

    Args:
        name: of a hook point; "" for the model itself.
        model: it belongs to, where that is at hand.
        of: what messages call the model.

    Raises:
        ModelError: where the streams of the model are not kept apart.
    """
    if has_decoder(model) or _OF_DECODERS.search(name):
        called = of or (repr(name) if model is None else repr(type(model).__name__))
        raise ModelError(
            f"{called} {'is of a model that ' if called == repr(name) else ''}has an encoder and a "
            "decoder, which read different tokens, and their streams are not kept apart; use "
            "adapter='module' on the Hugging Face model"
        )


def has_decoder(model: Any) -> bool:
    """Whether a model of TransformerLens has an encoder and a decoder."""
    wrapped = getattr(model, "original_model", None)
    if getattr(getattr(wrapped, "config", None), "is_encoder_decoder", False):
        return True
    return all(
        isinstance(getattr(model, part, None), nn.ModuleList) for part in ("encoder", "decoder")
    )


def check_alike(name: str, first: Tensor, again: Tensor) -> None:
    """See that a hook point that fires again in one pass gives what it gave at first.

    Args:
        name: of the hook point.
        first: sum of its values, float64, of the first call.
        again: of another.

    Raises:
        SiteError: where it does not: a block that is run in a loop.
    """
    if not bool(torch.isclose(first, again, rtol=0, atol=0, equal_nan=True)):
        raise SiteError(
            f"{name!r} fires more than once in a forward pass, with different values, and "
            "TransformerLens gives the calls one name; use adapter='module' on the wrapped "
            "model, which tells them apart as 'path:0', 'path:1'"
        )
