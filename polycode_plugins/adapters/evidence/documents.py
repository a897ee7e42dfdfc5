"""Which rows belong to one document, over the calls of somebody's workflow.

Text that is generated with a cache comes one token at a time: the steps of one text are one
document. What ties a step to the one before is the cache. Between two steps its rows may be
reordered (beams), so each is recognised by what it holds. Rows that begin alike (the beams of one
prompt) are one document. Several documents packed into one row are told apart by positions that
begin again, or by a mask that lets nothing see across. Where rows are tied to others and it cannot
be told how, they are given the one document `UNKNOWN`, so that no independence is claimed of them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polycode_plugins.adapters.evidence.shadow import leaves
from polycode_plugins.errors import SiteError
from polycode_plugins.row_names import Repeats

_JOINED = "joined through the cache"
UNKNOWN = -1  # the document of rows of which it is not known which they belong to

_CACHES = ("past_key_values", "past_key_value", "past", "cache_params", "past_kv_cache", "cache")
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
_MOST = 1 << 20  # documents in a row
_KEPT = 8  # values of a position in a cache that are looked at
_FACTOR = -0x61C8864680B583EB  # odd: spreads places over 64 bits


@dataclass
class _Steps:
    """What is known of the texts in one cache.

    Attributes:
        cache: the object, if it lives.
        documents: int64 [batch], of its rows.
        digests: int64 [batch], of what its rows held at the end of the last call.
        length: positions it held then; None where it does not say.
        ended: bool [batch], which texts have ended while others went on.
    """

    cache: Any
    documents: Tensor
    digests: Tensor | None
    length: int | None
    ended: Tensor


class Documents:
    """Numbers the documents of the rows of each pass.

    Attributes:
        of_pass: int64 [batch] or [batch, position], the documents of the pass under way; None where
            each of its rows is one of its own, or nothing is known of rows.
        why: how they are known, for the record of the run.
        ended: bool [batch], rows of the pass whose text has ended before it; None where none has.
        reasons: {why: rows} of all passes.
    """

    def __init__(self) -> None:
        self.of_pass: Tensor | None = None
        self.ended: Tensor | None = None
        self.why = ""
        self.reasons: dict[str, int] = {}
        self._singles = 0  # passes of one token without a cache
        self.next_number = 0
        self._steps: list[_Steps] = []
        self._texts = Repeats()
        self._prefix: tuple[Tensor, Tensor] | None = None  # tokens of the last pass, documents

    def begin(self, arguments: Mapping[str, Any], rows: int | None, length: int | None) -> None:
        """Take in what a pass is called with.

        Raises:
            SiteError: where tokens that were computed have been taken back.
        """
        self.of_pass, self.why, self.ended = None, "", None
        if not rows:
            return
        cache = _cache(arguments)
        documents = self._grown(arguments) if cache is None else self._continued(cache, rows)
        packed = _packed(arguments, rows, length)
        if documents is None and length == 1 and cache is None and self._repeats():
            documents, self.why = torch.full((rows,), UNKNOWN), "unknown: one token at a time"
        if documents is None and (
            packed is not None or cache is not None or _tokens(arguments) is not None
        ):
            documents = self._new(arguments, rows, alike=cache is not None)
        if packed is not None and documents is not None:
            new = self.next_number + torch.arange(rows)[:, None] * packed.shape[1] + packed
            documents = torch.where(packed == 0, documents[:, None], new)
            self.next_number = int(new.max()) + 1
            self.why = "several in a row"
        self.of_pass = documents
        if self.why:
            self.reasons[self.why] = self.reasons.get(self.why, 0) + rows

    def end(
        self,
        arguments: Mapping[str, Any],
        output: Any,
        rows: int | None,
        ends: Sequence[int] = (),
    ) -> None:
        """Take in what a pass has left behind: its cache and its tokens.

        Args:
            arguments: of the pass.
            output: of the pass.
            rows: of the input.
            ends: tokens that end a text that is being generated.
        """
        if not rows:
            return
        cache, tokens = _cache(arguments), _tokens(arguments)
        if cache is None:
            cache = _cache(output if isinstance(output, Mapping) else {})
        documents = self.of_pass
        if documents is None and cache is not None:
            documents = self._new(arguments, rows, alike=False)
        if documents is None:
            return
        documents = documents if documents.dim() == 1 else documents[:, -1]
        if tokens is not None:
            self._prefix = tokens.detach().clone(), documents
        if cache is None:
            return
        ended = torch.zeros(rows, dtype=torch.bool) if self.ended is None else self.ended
        if self.why == _JOINED and tokens is not None and ends:
            last = torch.isin(tokens, torch.tensor(list(ends), device=tokens.device))
            ended = ended | last.any(dim=1).cpu()
        digests = _digests(cache, rows)
        held = _Steps(_weak(cache), documents, digests, cache_length(cache), ended)
        others = [s for s in self._steps if _alive(s.cache) is not cache]
        self._steps = [*others[-7:], held]

    # -- what a pass goes on with ----------------------------------------------------------------

    def _continued(self, cache: Any, rows: int) -> Tensor | None:
        """The documents of rows that go on with what is in a cache; None where it is empty."""
        length = cache_length(cache)
        known = next((s for s in self._steps if _alive(s.cache) is cache), None)
        if known is not None and None not in (length, known.length):
            if length == 0:
                known = None
            elif int(length or 0) < int(known.length or 0):
                raise SiteError(
                    "tokens that were computed have been taken back from the cache (assisted "
                    "generation, a rolled back step), so the activations include some of no text; "
                    "generate without it, or run the finished texts through the model in one pass"
                )
        if known is None and (length == 0 or (length is None and not _holds(cache))):
            return None
        digests = _digests(cache, rows)
        for steps in [known] if known is not None else self._steps:
            index = _matched(steps, digests, rows)
            if index is not None:
                self.why = _JOINED
                if bool(steps.ended.any()):
                    self.ended = steps.ended[index]
                return steps.documents[index]
        self.why = "unknown: a cache that was filled elsewhere"
        return torch.full((rows,), UNKNOWN)

    def _grown(self, arguments: Mapping[str, Any]) -> Tensor | None:
        """The documents of rows that repeat the tokens of the last pass and go on: no cache."""
        tokens = _tokens(arguments)
        if self._prefix is None or tokens is None:
            return None
        before, documents = self._prefix
        size = before.shape[1]
        if not 0 < size < tokens.shape[1] or before.device != tokens.device:
            return None
        same = (tokens[:, None, :size] == before[None]).all(dim=2)
        if not bool(same.any(dim=1).all()):
            return None
        self.why = "joined by their tokens"
        return documents[same.int().argmax(dim=1).cpu()]

    def _repeats(self) -> bool:
        """Whether passes of one token have come before."""
        self._singles += 1
        return self._singles > 1

    def _new(self, arguments: Mapping[str, Any], rows: int, *, alike: bool) -> Tensor:
        """New documents, one for each row. A text that has come before is no new one; with `alike`
        rows that are called with the same are one, as the beams of a prompt are."""
        documents = self.next_number + torch.arange(rows)
        self.next_number += rows
        candidates: tuple[Any, ...] = (_tokens(arguments), arguments.get("attention_mask"))
        read: list[Tensor] = [value for value in candidates if _flat(value, rows)]
        if alike and not read:
            read = [leaf.values for leaf in leaves(arguments)]
            seen = Repeats()  # of this pass: what is no text may be the same again and again
        else:
            seen = self._texts
        digests = _content(read) if rows > 1 or seen is self._texts else None
        if digests is None or len(digests) != rows:
            return documents
        again = seen.documents(digests, documents)
        return documents if again is None else again


def _flat(value: Any, rows: int) -> bool:
    """Whether an argument holds numbers for each position of each row."""
    return isinstance(value, Tensor) and value.dim() == 2 and len(value) == rows


def _matched(steps: _Steps, digests: Tensor | None, rows: int) -> Tensor | None:
    """Where each row of a cache was at the end of a pass, by what it held; None where unknown."""
    if len(steps.documents) == rows == 1 and _alive(steps.cache) is not None:
        return torch.zeros(1, dtype=torch.int64)
    if digests is None or steps.digests is None:
        return None
    if digests.shape == steps.digests.shape and bool((digests == steps.digests).all()):
        return torch.arange(rows)
    known: dict[int, int] = {}
    for place, digest in enumerate(steps.digests.tolist()):
        known.setdefault(digest, place)
    found = [known.get(digest) for digest in digests.tolist()]
    return None if None in found else torch.tensor(found)


def _tokens(arguments: Mapping[str, Any]) -> Tensor | None:
    """The tokens [batch, position] that a pass reads."""
    for name in ("decoder_input_ids", "input_ids"):
        value = arguments.get(name)
        if isinstance(value, Tensor) and value.dim() == 2 and not value.is_floating_point():
            return value
    return None


def _cache(arguments: Mapping[str, Any]) -> Any:
    """The cache among arguments, or None."""
    for name in _CACHES:
        value = arguments.get(name)
        if value is not None and not isinstance(value, Tensor | bool):
            return value
    return None


def cache_length(cache: Any) -> int | None:
    """Positions in a cache; None where it does not say."""
    get = getattr(cache, "get_seq_length", None)
    if callable(get):
        try:
            return int(get())
        except Exception:  # a cache of states without a length
            return None
    return None


def past_of(arguments: Mapping[str, Any]) -> int | None:
    """Positions in the cache that a pass goes on with; None where there is none, or it hides it."""
    cache = _cache(arguments)
    return None if cache is None else cache_length(cache)


def _holds(cache: Any) -> bool:
    return any(True for _ in _tensors(cache))


def _tensors(cache: Any, depth: int = 0) -> Iterable[Tensor]:
    """The tensors of the last layer of a cache, whatever it is made of."""
    inner = getattr(cache, "self_attention_cache", None)
    if inner is not None:
        yield from _tensors(inner)
        return
    if isinstance(cache, Tensor):
        if cache.dim() > 1 and cache.numel():
            yield cache
        return
    if depth > 3:
        return
    layers = next(
        (getattr(cache, n) for n in ("layers", "key_cache", "entries") if getattr(cache, n, None)),
        cache,
    )
    if isinstance(layers, list | tuple):
        for layer in reversed(layers):
            parts = list(_tensors(layer, depth + 1))
            if parts:
                yield from parts[:2]
                return
        return
    for value in getattr(cache, "__dict__", {}).values():
        if isinstance(value, Tensor | list | tuple):
            yield from _tensors(value, depth + 1)
        elif isinstance(value, Mapping):
            yield from _tensors(list(value.values()), depth + 1)


def _digests(cache: Any, rows: int) -> Tensor | None:
    """int64 [rows] of what each row of a cache holds; None where it has no such rows."""
    if rows == 1:
        return None
    held = [t for t in list(_tensors(cache))[:1] if t.shape[0] == rows]
    return _content(t[..., :_KEPT] if t.dim() > 2 else t for t in held)


def _content(tensors: Iterable[Tensor]) -> Tensor | None:
    """int64 [rows]: equal for rows with equal values, and for others as good as never."""
    total: Tensor | None = None
    for index, values in enumerate(tensors):
        if values.dim() < 2 or (total is not None and len(values) != len(total)):
            continue
        values = values.detach()
        values = values.to(torch.uint8) if values.dtype == torch.bool else values
        bits = values.contiguous().flatten(1).view(_INTEGERS[values.element_size()])
        place = torch.arange(1, bits.shape[1] + 1, device=bits.device) * _FACTOR
        found = ((bits.to(torch.int64) + 1) * (place ^ (place >> 29))).sum(dim=1).cpu()
        total = found if total is None else total * 31 + found * (2 * index + 3)
    return total


def _weak(cache: Any) -> Any:
    try:
        return weakref.ref(cache)
    except TypeError:  # a tuple: another one each time, known by what it holds
        return lambda: None


def _alive(reference: Any) -> Any:
    return reference()


# -- several documents in a row ------------------------------------------------------------------


def of_rows(documents: Tensor | None, axes: Sequence[str], shape: Sequence[int]) -> Tensor | None:
    """The documents of a tensor, [batch] or [batch, position], from those of the input's rows."""
    if documents is None:
        return None
    if len(documents) != shape[0]:
        return torch.full((shape[0],), UNKNOWN)
    if documents.dim() == 2:
        if "position" not in axes:
            same = bool((documents == documents[:, :1]).all())
            return documents[:, 0] if same else torch.full_like(documents[:, 0], UNKNOWN)
        if shape[list(axes).index("position")] != documents.shape[1]:
            return torch.full_like(documents[:, 0], UNKNOWN)
    return documents


def packed_rows(
    arguments: Mapping[str, Any], known: Tensor, rows: int | None, length: int | None
) -> Tensor | None:
    """int64 [rows, length], documents of rows that hold several; None where each holds one.

    Args:
        arguments: of the pass.
        known: int64 [rows], what each row is a part of.
        rows: of the input.
        length: positions of the input.
    """
    if rows is None:
        return None
    packed = _packed(arguments, rows, length)
    return None if packed is None else known.cpu()[:, None] * _MOST + packed


def _packed(arguments: Mapping[str, Any], rows: int, length: int | None) -> Tensor | None:
    """int64 [rows, length], the number of the document in its row; None where each is one."""
    if length is None or length < 2:
        return None
    starts = _starts_of_positions(arguments, rows, length)
    if starts is None:
        starts = _starts_of_mask(arguments, rows, length)
    if starts is None:
        return None
    found = starts.long().cumsum(dim=1).cpu()
    return found - found[:, :1] if bool((found != found[:, :1]).any()) else None


def _starts_of_positions(arguments: Mapping[str, Any], rows: int, length: int) -> Tensor | None:
    """bool [rows, length], True where positions begin again, or a document's number changes."""
    mask = arguments.get("attention_mask")
    if (
        isinstance(mask, Tensor)
        and mask.shape == (rows, length)
        and mask.dtype in (torch.int32, torch.int64)
        and bool((mask > 1).any())
    ):
        return _changes(mask)  # documents by number
    positions = arguments.get("position_ids")
    if not isinstance(positions, Tensor) or positions.dim() != 2 or positions.shape[1] != length:
        return None
    before, after = positions[:, :-1], positions[:, 1:]
    again = (after < before) | ((after == 0) & (before == 0))
    if isinstance(mask, Tensor) and mask.shape == (rows, length):
        again = again & mask[:, :-1].bool()  # padding before a text begins nothing
    # Without a mask it shows: a row that begins with one position again and again is padded.
    padded = (after == before).int().cumprod(dim=1)
    size = padded.sum(dim=1, keepdim=True)
    place = torch.arange(length - 1, device=positions.device)
    again = again & (place >= size) & ~((place == size) & (size > 0) & (before[:, :1] > 0))
    if not bool(again.any()):
        return None
    return torch.nn.functional.pad(again, (1, 0)).expand(rows, length)


def _changes(numbers: Tensor) -> Tensor:
    return torch.nn.functional.pad(numbers[:, 1:] != numbers[:, :-1], (1, 0))


def _starts_of_mask(arguments: Mapping[str, Any], rows: int, length: int) -> Tensor | None:
    """bool [rows, length], True where a position sees itself and nothing that came before."""
    mask = arguments.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.dim() != 4 or mask.shape[-2:] != (length, length):
        return None
    allowed = mask[:, 0] if mask.dtype == torch.bool else mask[:, 0] > -5000.0
    before = allowed.tril(-1).any(dim=2)
    own = allowed.diagonal(dim1=1, dim2=2)
    starts = own & ~before
    # The first position that counts begins the first document: padding before it is none.
    first = starts.int().argmax(dim=1, keepdim=True)
    starts = starts.scatter(1, first, value=False)
    return starts.expand(rows, length)
