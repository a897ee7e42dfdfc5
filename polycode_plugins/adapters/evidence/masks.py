"""Which positions count: the mask of the stream that a tensor belongs to.

A mask belongs to the stream of the module it was given to. So it is looked for from the tensor
outwards, in what the modules around it were called with: the decoder of an encoder-decoder is
called with a mask of its own, or with none; a vision tower is called with pictures and has none; a
model with prompt tuning is called with a longer one than its wrapper. Where a mask leaves something
out and does not fit the tensor, that is a question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from polycode_plugins.adapters.evidence.axes import (
    main_leaf,
)
from polycode_plugins.adapters.evidence.calls import Call
from polycode_plugins.errors import DataError, SiteError

#: A mask, a function of the named arguments of a call that returns one, None to count everything,
#: or "given": what the model itself is given.
Mask = Tensor | Callable[[Mapping[str, Any]], Tensor | None] | Literal["given"] | None

T = TypeVar("T")

# What a mask is called, and whether True (or 1) means that a position counts.
_MEANING = {
    "attention_mask": True,
    "padding_mask": None,
    "pad_mask": None,
    "mask": None,
    "key_padding_mask": False,
    "src_key_padding_mask": False,
    "tgt_key_padding_mask": False,
    "input_mask": None,
    "text_mask": None,
    "decoder_attention_mask": True,
}
_DECODER = ("tgt_key_padding_mask", "decoder_attention_mask")
_TEXT = ("input_ids", "inputs_embeds", "input_values", "input_features", "decoder_input_ids")
_PICTURE = ("pixel_values", "pixel_values_videos", "images")
_OTHERS = ("key_value_states", "encoder_hidden_states")  # what cross-attention reads its keys from
_FAR = -5000.0  # what is added to a score that shall not count is less; biases by position are not
_CACHES = ("past_key_values", "past_key_value", "past", "cache_params", "cache")


@dataclass(frozen=True)
class Counted:
    """Which positions of a tensor count.

    Attributes:
        mask: bool [batch, position] or [batch]; None where all do.
        why: where the mask is from, for the record of the run.
    """

    mask: Tensor | None = None
    why: str = ""


class _Candidate:
    """A mask that a module was called with.

    Attributes:
        mask: bool [batch, keys]; None says that the stream has none.
        why: where it is from.
        final: whether what lies further out is of another stream.
        offset: positions of the input, where the mask covers more: those in a cache come first.
        unclear: whether it is not known what True means.
        whole: whether it leaves nothing out.
    """

    def __init__(
        self,
        mask: Tensor | None,
        why: str,
        *,
        final: bool,
        offset: int | None = None,
        unclear: bool = False,
    ) -> None:
        self.mask = mask
        self.why = why
        self.final = final
        self.offset = offset
        self.unclear = unclear
        self.whole = mask is None or bool(mask.all()) or (unclear and not bool(mask.any()))


def counted(call: Call | None, rows: int | None, positions: int | None) -> Counted:
    """What counts in a tensor of `rows` rows and `positions` positions.

    Args:
        call: the innermost call under way around the tensor.
        rows: of its batch; None when it is not known which rows they are.
        positions: along its position axis; None without one.

    Raises:
        SiteError: where a mask leaves something out and does not fit.
    """
    misfit: _Candidate | None = None
    for candidate in _candidates(call):
        if candidate.whole:
            if misfit is None and (candidate.final or candidate.mask is not None):
                return Counted()
            continue
        fitted = _fitted(candidate, rows, positions)
        if candidate.unclear:
            if fitted is None or positions is None:
                continue  # no mask of positions
            raise SiteError(
                f"the model was given {candidate.why.partition(' ')[0]!r}, and whether True there "
                "means that a position counts is not known; say what counts with attach(..., "
                "mask=...), or mask=None to count everything"
            )
        if fitted is not None:
            return Counted(fitted, candidate.why)
        misfit = misfit or candidate
    if misfit is None or misfit.mask is None:
        return Counted()
    raise SiteError(
        f"the model was given a mask {tuple(misfit.mask.shape)} ({misfit.why}) that leaves "
        f"positions out, and which ones these are here is not known, since there are "
        f"{_described(rows, positions)}; say what counts with attach(..., mask=...), or mask=None "
        "to count everything"
    )


def asked(
    mask: Mask, arguments: Mapping[str, Any], rows: int | None, positions: int | None
) -> Counted:
    """What counts by a mask that the user gave.

    Raises:
        SiteError: for one that does not fit.
        DataError: for what is no mask.
    """
    found = mask(arguments) if callable(mask) and not isinstance(mask, Tensor) else mask
    if found is None:
        return Counted()
    if not isinstance(found, Tensor) or found.dim() not in (1, 2):
        raise DataError(
            f"mask= must be a bool tensor [batch] or [batch, position], a function that returns "
            f"one, or None, and this is {type(found).__name__} {tuple(getattr(found, 'shape', ()))}"
        )
    candidate = _Candidate(found.cpu().bool(), "mask=", final=True)
    if candidate.whole:
        return Counted()
    fitted = _fitted(candidate, rows, positions)
    if fitted is None:
        raise SiteError(
            f"the mask {tuple(found.shape)} that was given does not fit: the site has "
            f"{_described(rows, positions)}; give a function of the call for masks that differ"
        )
    return Counted(fitted, "mask=")


def _described(rows: int | None, positions: int | None) -> str:
    if rows is None:
        return "rows of unknown origin, as an expert has"
    return f"{rows} rows" + ("" if positions is None else f" of {positions} positions")


def _fitted(candidate: _Candidate, rows: int | None, positions: int | None) -> Tensor | None:
    mask = candidate.mask
    assert mask is not None
    if rows is None or mask.shape[0] not in (1, rows):
        return None
    mask = mask.expand(rows, *mask.shape[1:])
    if mask.dim() == 1:
        return mask
    if positions is None:
        return mask.any(dim=1)  # it says nothing about a tensor without positions
    if mask.shape[1] == positions:
        return mask
    return mask[:, -positions:] if candidate.offset == positions < mask.shape[1] else None


def _candidates(call: Call | None) -> Iterator[_Candidate]:
    """The masks around a tensor, the likeliest first."""
    if call is None:
        return
    if _reads_keys(call):
        yield from _of_keys(call)
        return
    spare: list[_Candidate] = []
    for around in call.outwards():
        if "masks" not in around.notes:
            around.notes["masks"] = _read(around)
        for candidate in around.notes["masks"]:
            if candidate.final or candidate.unclear:
                yield candidate
            else:
                spare.append(candidate)
            if candidate.final and candidate.mask is None:
                return
    yield from spare


def _reads_keys(call: Call) -> bool:
    """Whether a module makes keys and values for a cross-attention: it is of the other stream."""
    own = next((v for v in call.arguments.values() if isinstance(v, Tensor)), None)
    outer = call.outer
    return (
        own is not None
        and outer is not None
        and any(outer.arguments.get(name) is own for name in _OTHERS)
        and not any(call.arguments.get(name) is own for name in _OTHERS)
    )


def _of_keys(call: Call) -> Iterator[_Candidate]:
    """The masks of the stream that a cross-attention reads its keys from."""
    for around in call.outwards():
        names = ["encoder_attention_mask"]
        if "decoder_input_ids" in _accepted(around):
            names.append("attention_mask")
        for name in names:
            value = around.arguments.get(name)
            if isinstance(value, Tensor) and value.dim() == 2:
                why = f"{name} of {type(around.module).__name__}"
                yield _Candidate(_meant(on_host(value, call), counts=True), why, final=True)


def _read(call: Call) -> list[_Candidate]:
    """The masks that one module was called with."""
    arguments = call.arguments
    ours = any(isinstance(arguments.get(name), Tensor) for name in _TEXT)
    if not ours and any(isinstance(arguments.get(name), Tensor) for name in _OTHERS):
        return []  # cross-attention: its mask is that of its keys
    query, key = arguments.get("query"), arguments.get("key")
    if isinstance(query, Tensor) and key is not None and key is not query:
        return []
    if not ours and any(isinstance(arguments.get(name), Tensor) for name in _PICTURE):
        return [_Candidate(None, "", final=True)]
    found: list[_Candidate] = []
    given = False
    for name, counts in _MEANING.items():
        value = arguments.get(name)
        if name in _DECODER and "src" in arguments:
            continue  # the decoder inside is called with it
        if isinstance(value, Mapping):  # by kind of attention: the full one leaves out least
            value = value.get("full_attention", next(iter(value.values()), None))
        given = given or value is not None
        if not isinstance(value, Tensor):
            continue
        why = f"{name} of {type(call.module).__name__}"
        offset = _offset(arguments)
        if value.dim() == 2:
            value = on_host(value, call)
            mask, unclear = _meant(value, counts=counts is not False), counts is None
            found.append(_Candidate(mask, why, final=not unclear, offset=offset, unclear=unclear))
        elif value.dim() in (3, 4) and counts:
            keys = _once(call, value, _cached(arguments), partial(_seen_keys, value, call))
            if keys is not None:
                found.append(_Candidate(keys, why, final=ours, offset=offset))
    if not given and ours and "attention_mask" in _accepted(call):
        found.append(_Candidate(None, "", final=True))
    return found


def on_host(values: Tensor, call: Call) -> Tensor:
    """What modules are called with, on the CPU; copied from a GPU, which waits, once in a pass."""
    return _once(call, values, "on the host", values.cpu)


def _once(call: Call, values: Tensor, what: Any, make: Callable[[], T]) -> T:
    """`make()`, once in a pass for all modules that are called with the same tensor."""
    if values.is_inference():  # which does not tell whether it was changed in place
        return make()
    *_, outermost = call.outwards()
    known = outermost.notes.setdefault("once", {})
    key = id(values), values._version, what
    if key not in known:
        known[key] = make(), values  # which keeps its number
    made: T = known[key][0]
    return made


def _seen_keys(scores: Tensor, call: Call) -> Tensor | None:
    keys = _self_seen(_seen(scores).flatten(1, -3)[:, 0], call)
    return None if keys is None else keys.cpu()


def _accepted(call: Call) -> tuple[str, ...]:
    import inspect

    try:
        return tuple(inspect.signature(call.module.forward).parameters)
    except (TypeError, ValueError):
        return ()


def _offset(arguments: Mapping[str, Any]) -> int | None:
    """Positions of the input, which a mask may cover together with those in a cache."""
    main = main_leaf(arguments)
    return None if main is None or main.values.dim() < 2 else main.values.shape[1]


def _cached(arguments: Mapping[str, Any]) -> bool:
    return any(arguments.get(name) is not None for name in _CACHES)


def _meant(mask: Tensor, *, counts: bool) -> Tensor:
    """bool, True where a position counts."""
    if mask.is_floating_point() and bool((mask < 0).any()):
        return _seen(mask)  # added to the scores
    return mask.bool() if counts else ~mask.bool()


def _seen(scores: Tensor) -> Tensor:
    """Which keys count, of a mask that is added to the scores; numbers of 0 and 1 say it."""
    if not scores.is_floating_point():
        return scores.bool()
    if bool((scores >= 0).all()) and bool((scores > 0).any()):
        return scores > 0
    return scores > _FAR


def _self_seen(allowed: Tensor, call: Call) -> Tensor | None:
    """bool [batch, position] of a mask [batch, query, key]: a position counts that sees itself."""
    queries, keys = allowed.shape[-2:]
    if queries == 1 and keys > 1 and not _cached(call.arguments):
        return allowed[:, 0]
    if keys < queries:
        return None
    *_, outermost = call.outwards()
    past = outermost.notes.get("past")
    # A cache of a fixed size has room for keys that are still to come.
    first = past if past is not None and past + queries <= keys else keys - queries
    where = torch.arange(first, first + queries, device=allowed.device)
    own = allowed.gather(2, where.expand(len(allowed), queries)[..., None])
    # Rows of padding see nothing. Some kernels need one to see something and let it see all, also
    # what comes later, where the rows of the text do not.
    everything = allowed.all(dim=2)
    later = allowed.triu(first + 1).any(dim=2)
    return own[..., 0] & ~(everything & later & ~everything.all(dim=1, keepdim=True))
