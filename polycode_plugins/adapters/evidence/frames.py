"""The pass that a hook function is called from, as the frames of the interpreter show it.

TransformerLens tells a hook function its hook point and nothing else: not the model, not the name
that the user gave, not where one pass ends and the next begins. All of it stands in the frames of
the functions that are under way.
"""

from __future__ import annotations

import sys
import weakref
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import Tensor, nn

_READERS = ("forward", "input_to_embed")  # functions that know the tokens
_TOKENS = ("input_ids", "tokens", "input")
_RUN = "run_with_hooks"
_CALL = ("_call_impl", "forward_call")  # torch's call of a module, and its own for each call


@dataclass(frozen=True)
class PassUnderWay:
    """What is known of a pass.

    Attributes:
        model: the model of TransformerLens; None for hook points that are called by themselves.
        tokens: int64 [batch, position], what it reads; None where that is not seen.
        attention: its attention mask [batch, position]; None without.
        hooks: what `fwd_hooks` of `run_with_hooks` were: (name or filter, function).
        unbatched: whether hook functions get a batch of one row without its axis.
        call: something that lives as long as this pass, and is another in the next.
    """

    model: Any
    tokens: Tensor | None
    attention: Tensor | None
    hooks: tuple[tuple[Any, Any], ...]
    unbatched: bool
    call: weakref.ref[Any] | None


def pass_under_way() -> PassUnderWay:
    """The pass that the caller of the caller is called from."""
    model: Any = None
    tokens: Tensor | None = None
    attention: Tensor | None = None
    hooks: tuple[tuple[Any, Any], ...] = ()
    unbatched = False
    call: Any = None
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_name
        if name == _CALL[0] and model is None:
            call = frame.f_locals.get(_CALL[1], call)
        elif name in _READERS:
            seen = frame.f_locals
            own = seen.get("self")
            if isinstance(own, nn.Module) and model is None:
                # What is further out knows it better: an embedding of positions reads integers too.
                found = _integers(seen)
                tokens = tokens if found is None else found
                mask = seen.get("attention_mask")
                if isinstance(mask, Tensor) and mask.dim() == 2:
                    attention = mask
                if hasattr(own, "hook_dict") and hasattr(own, _RUN):
                    model = own
        elif name == _RUN:
            given = frame.f_locals.get("fwd_hooks") or ()
            hooks = tuple((one[0], one[1]) for one in given if len(one) == 2)
            unbatched = bool(frame.f_locals.get("remove_batch_dim"))
            model = model if model is not None else frame.f_locals.get("self")
            break
        frame = frame.f_back
    return PassUnderWay(model, tokens, attention, hooks, unbatched, _weak(call))


def _integers(seen: Any) -> Tensor | None:
    for name in _TOKENS:
        value = seen.get(name)
        if isinstance(value, Tensor) and value.dim() == 2 and not value.is_floating_point():
            return value
    return None


def _weak(call: Any) -> weakref.ref[Any] | None:
    try:
        return weakref.ref(call)
    except TypeError:
        return None
