"""What functions of torch return, by shape alone.

Without values (on the meta device) torch computes much of it in Python: a map takes it 0.4 ms, an
attention 2 ms, and a trial of a large network thousands of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Arguments = Sequence[Any]
Named = Mapping[str, Any]


class Shapes(TorchFunctionMode):
    """What torch says without values, in less time.

    Where sizes do not fit or the layout in memory is not the usual one torch itself is asked.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        answer = ANSWERS.get(func)
        if answer is not None and args and _plain(args[0]):
            found = answer(args, named)
            if found is not None:
                return found
        return func(*args, **named)


def _plain(value: Any) -> bool:
    """Whether it is a tensor of floats without values."""
    return isinstance(value, Tensor) and value.is_meta and value.is_floating_point()


def _usual(*values: Any) -> bool:
    """Whether they are such tensors, of one type, their axes in their order in memory."""
    return all(_plain(v) and v.is_contiguous() and v.dtype == values[0].dtype for v in values)


def _empty(like: Tensor, *sizes: int) -> Tensor:
    return like.new_empty(sizes)


def _like(args: Arguments, named: Named) -> Tensor:
    values: Tensor = args[0]
    return values if named.get("inplace") else torch.empty_like(values)


def _batch_norm(args: Arguments, named: Named) -> Tensor | None:
    """By what was gathered in training."""
    values, mean = args[0], args[1] if len(args) > 1 else named.get("running_mean")
    fits = values.dim() > 1 and isinstance(mean, Tensor) and values.shape[1] == mean.numel()
    return torch.empty_like(values) if fits and named.get("training") is False else None


def _layer_norm(args: Arguments, named: Named) -> Tensor | None:
    values, shape = args[0], args[1] if len(args) > 1 else named["normalized_shape"]
    if tuple(values.shape[-len(shape) :]) != tuple(shape):
        return None
    # The others keep the order of axes in memory.
    return torch.empty_like(values, memory_format=torch.contiguous_format)


def _combined(args: Arguments, named: Named) -> Tensor | None:
    """A sum or a product with a number, or with a tensor that is as large or spread to be so."""
    if named or len(args) != 2:
        return None
    values, other = args
    if type(other) in (int, float):
        return torch.empty_like(values)
    if not _plain(other) or values.dtype != other.dtype:
        return None
    if values.shape == other.shape:
        return torch.empty_like(values) if _usual(values, other) else None
    # Axes of one entry, and one entry that stands for many, may lie anywhere in memory.
    if _spreads(other.shape, values.shape):
        sure = 1 not in values.shape and 0 not in values.stride()
        return torch.empty_like(values) if sure else None
    if _spreads(values.shape, other.shape) and _usual(values, other) and 1 not in other.shape:
        return torch.empty_like(other)
    return None


def _mean(args: Arguments, named: Named) -> Tensor | None:
    """Over the last axis, which stays."""
    if args[1:] != (-1,) or dict(named) != {"keepdim": True} or not _usual(args[0]):
        return None
    return _empty(args[0], *args[0].shape[:-1], 1)


def _linear(args: Arguments, named: Named) -> Tensor | None:
    if named or len(args) not in (2, 3):
        return None
    values, weight = args[:2]
    bias = args[2] if len(args) == 3 else None
    known = _usual(values, weight) if bias is None else _usual(values, weight, bias)
    if not known or values.dim() < 2 or weight.dim() != 2 or values.shape[-1] != weight.shape[1]:
        return None
    if bias is not None and bias.shape != weight.shape[:1]:
        return None
    return _empty(values, *values.shape[:-1], weight.shape[0])


def _addmm(args: Arguments, named: Named) -> Tensor | None:
    if named or len(args) != 3 or not _usual(*args) or args[1].dim() != 2 or args[2].dim() != 2:
        return None
    bias, values, weight = args
    if values.shape[1] != weight.shape[0] or bias.shape != weight.shape[1:]:
        return None
    return _empty(values, values.shape[0], weight.shape[1])


def _attention(args: Arguments, named: Named) -> Tensor | None:
    """Of [batch, head, position, feature]."""
    if len(args) != 3 or not all(_plain(v) and v.dim() == 4 for v in args):
        return None
    query, key, value = args
    (rows, heads, length, width), shared = query.shape, key.shape[1]
    repeated = heads % shared == 0 if named.get("enable_gqa") else heads == shared
    if (*key.shape[:1], *key.shape[3:]) != (rows, width) or not repeated:
        return None
    if key.shape[:3] != value.shape[:3] or not query.dtype == key.dtype == value.dtype:
        return None
    mask = named.get("attn_mask")
    if mask is not None and not _spreads(mask.shape, (rows, heads, length, key.shape[2])):
        return None
    if value.shape[3] == width:
        return torch.empty_like(query)  # whose axes may lie in memory as those of a map do
    return _empty(query, rows, heads, length, value.shape[3])


def _spreads(sizes: Sequence[int], whole: Sequence[int]) -> bool:
    """Whether what has these sizes is as large as the whole where axes of 1 are repeated."""
    pairs = zip(reversed(sizes), reversed(whole), strict=False)
    return len(sizes) <= len(whole) and all(size in (1, full) for size, full in pairs)


_OF_TORCH = nn.functional
_LIKE_THE_FIRST = (
    *(_OF_TORCH.gelu, _OF_TORCH.silu, _OF_TORCH.relu, _OF_TORCH.hardswish, _OF_TORCH.hardsigmoid),
    *(_OF_TORCH.hardtanh, torch.rsqrt, torch.tanh, torch.sigmoid, Tensor.neg),
)
_COMBINED = (Tensor.add, Tensor.sub, Tensor.mul, Tensor.div, Tensor.pow, Tensor.__pow__, torch.pow)

#: For functions whose first argument is a tensor of floats without values: what they return, None
#: where torch is to be asked.
ANSWERS: dict[Any, Callable[[Arguments, Named], Tensor | None]] = {
    _OF_TORCH.batch_norm: _batch_norm,
    _OF_TORCH.layer_norm: _layer_norm,
    _OF_TORCH.linear: _linear,
    torch.addmm: _addmm,
    Tensor.mean: _mean,
    _OF_TORCH.scaled_dot_product_attention: _attention,
    **dict.fromkeys(_LIKE_THE_FIRST, _like),
    **dict.fromkeys(_COMBINED, _combined),
}
