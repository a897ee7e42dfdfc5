"""Reading a model inside an engine: from packed steps to the activations of whole texts.

It hangs on the model in the process that runs it. Before a step it learns from the forward context
which rows are whose; during the step it copies the rows of each site that are new; and when texts
have ended it hands them on, [batch, position, ..], as any adapter does. Whatever goes wrong is kept
and said when results are asked for: the requests of others go on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polycode_plugins.activations import Activations, Tokens
from polycode_plugins.adapters.base import Sink
from polycode_plugins.adapters.vllm.schedule import step_parts
from polycode_plugins.adapters.vllm.sites import ADDING, FEATURES, HEADS, Place
from polycode_plugins.adapters.vllm.texts import Piece, Texts, counting
from polycode_plugins.adapters.vllm.waiting import Waiting, padded
from polycode_plugins.errors import DataError, PolycodeError, SiteError

TOKENS = ""  # key of the pool that holds the tokens' ids
DELIVERY = 2048  # tokens of texts that have ended are handed on together


@dataclass(frozen=True)
class _Step:
    """New rows of the step under way and where they wait; None for a step that is not read."""

    rows: Tensor
    slots: Tensor
    whole: bool  # whether these are all rows, in order
    count: int
    first: int | None  # slot of rows that are whole and wait one after the other


class Reader:
    """Hooks on a model of vLLM, from the first step to `close`.

    Args:
        runner: vLLM's model runner, which knows the requests and holds the model.
        model: the model.
        places: what to read.
        sink: receives the activations of whole texts.
        context: gives the forward context of the step under way.
        special: ids of tokens that do not count in requests of which nothing else is known.
        text: the text of a token, for naming samples.
        longest: tokens of a piece of a text at most; None for whole texts.
        room: bytes of what waits.
        most: places of a batch that is handed on, padding included, for each token in it.

    Attributes:
        fired: how often each site was handed on.
        problems: the first thing that went wrong at each site.
        left_out: {site: {why: positions}} that a mask has left out.
        texts: of the requests.
    """

    def __init__(
        self,
        runner: Any,
        model: nn.Module,
        places: Sequence[Place],
        sink: Sink,
        context: Callable[[], Any],
        *,
        special: Sequence[int] = (),
        text: Callable[[int], str] | None = None,
        longest: int | None = None,
        room: int = 2**30,
        most: float = 1.25,
    ) -> None:
        self._runner, self._model, self._sink, self._context = runner, model, sink, context
        self._places = list(places)
        self._special = torch.tensor(list(special), dtype=torch.int64)
        self._text, self._most = text, most
        self.fired = {place.name: 0 for place in places}
        self.problems: dict[str, Exception] = {}
        self.left_out: dict[str, dict[str, int]] = {}
        self.waiting = Waiting(room)
        self.texts = Texts(longest)
        self._step: _Step | None = None
        self._unproven: dict[str, tuple[Any, Any]] = {}
        self._proven: set[str] = set()
        self._stored: set[str] = set()  # sources that were copied in this step
        self._times: dict[str, int] = {}  # steps in which each was
        self._steps = 0
        self._reads = 0  # steps with rows that were new
        self._handles: list[RemovableHandle] = []
        try:
            self._hang()
        except BaseException:
            self.close()
            raise

    # -- hooks -----------------------------------------------------------------------------------

    def _hang(self) -> None:
        begin = partial(self._guarded, None, self._begin)
        self._handles.append(
            self._model.register_forward_pre_hook(
                lambda _m, args, kwargs: begin(args, kwargs), with_kwargs=True, prepend=True
            )
        )
        end = partial(self._guarded, None, self._end)
        self._handles.append(self._model.register_forward_hook(lambda *_: end()))
        by_tensor: dict[str, list[Place]] = {}
        for place in self._places:
            by_tensor.setdefault(place.source, []).append(place)
        for same in by_tensor.values():
            place = same[0]
            module = self._model.get_submodule(place.module)
            names = [one.name for one in same]
            take = partial(self._guarded, names, partial(self._take, same, module))
            if place.side == "in":
                hook = module.register_forward_pre_hook(
                    lambda _m, args, kwargs, take=take: take(args, kwargs, None), with_kwargs=True
                )
            else:
                hook = module.register_forward_hook(
                    lambda _m, _args, output, take=take: take((), {}, output)
                )
            self._handles.append(hook)
            if place.stream and place.side == "out" and place.proof is not None:
                adds = self._model.get_submodule(place.proof)
                prove = partial(self._guarded, names, partial(self._prove, place.module, adds))
                self._handles.append(
                    adds.register_forward_pre_hook(
                        lambda _m, args, kwargs, prove=prove: prove(args, kwargs), with_kwargs=True
                    )
                )

    def _guarded(self, names: Iterable[str] | None, read: Callable[..., None], *args: Any) -> None:
        """Call `read`; an error is kept for the sites `names`, or for all of them."""
        try:
            read(*args)
        except Exception as error:  # also ours: the engine's requests go on
            for name in self.fired if names is None else names:
                self.problems.setdefault(name, error)
            if names is None:
                self._step = None

    def close(self) -> None:
        """Take all hooks off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    # -- a step ----------------------------------------------------------------------------------

    def _begin(self, args: Any, kwargs: Any) -> None:
        if self._step is not None:
            self._step = None
            raise DataError(
                "a step of the engine failed on its way through the model, so the texts that were "
                "under way cannot be told apart from what it left; gather statistics anew"
            )
        self._unproven.clear()
        self._stored.clear()
        metadata = self._context().attn_metadata
        if metadata is None:  # the engine measures its memory, or warms up
            return
        if len(self.problems) == len(self.fired):
            return
        self.texts.end(self._runner.requests)
        if self.texts.ended >= DELIVERY:
            self.deliver()
        tokens = _argument(self._model, args, kwargs, "input_ids")
        if not isinstance(tokens, Tensor):
            raise DataError(
                "requests came as embeddings, of which it is not known what the model reads; give "
                "prompts as texts or tokens"
            )
        parts = step_parts(*_packing(metadata, self._runner), len(tokens))
        new = [part for part in map(self.texts.ledger.new, parts) if part is not None]
        self._steps += 1
        count = sum(part.count for part in new)
        if not count:
            return
        if self.texts.ended and self.waiting.crowded(count):
            self.deliver()
        slots = self.waiting.slots(count)
        at = 0
        for part in new:
            self.texts.add(part, slots[at : at + part.count])
            at += part.count
        rows = [i for part in new for i in range(part.start, part.start + part.count)]
        device = tokens.device
        whole = rows == list(range(count))
        first = slots[0] if whole and slots == list(range(slots[0], slots[0] + count)) else None
        self._step = _Step(
            torch.tensor(rows, device=device),
            torch.tensor(slots, device=device),
            whole,
            count,
            first,
        )
        self._store(TOKENS, tokens.to(torch.int64))

    def _store(self, key: str, values: Tensor, more: Tensor | None = None) -> None:
        """Copy the new rows of `values`, or of their sum with `more`."""
        step = self._step
        assert step is not None
        if step.first is not None and (more is None or more.dtype == values.dtype):
            rows = values[: step.count]
            run = self.waiting.run(key, step.first, rows)
            if run.dtype == rows.dtype:  # else `store` says what is wrong
                if more is None:
                    run.copy_(rows)
                else:
                    torch.add(rows, more[: step.count], out=run)
                self._stored.add(key)
                return
        values = values if more is None else values + more
        rows = values[: step.count] if step.whole else values.index_select(0, step.rows)
        self.waiting.store(key, rows, step.slots)
        self._stored.add(key)

    def _take(
        self, same: list[Place], module: nn.Module, args: Any, kwargs: Any, output: Any
    ) -> None:
        """Copy the new rows of the tensor that is at all of the places `same`."""
        place = same[0]
        if self._step is None or place.name in self.problems:
            return
        values, more = self._read(place, module, args, kwargs, output)
        if not isinstance(values, Tensor) or values.dim() != 2 or not values.is_floating_point():
            what = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise SiteError(
                f"{place.name!r} holds {what} and no activations [tokens, features]; leave it out"
            )
        if place.columns is not None:
            values = values[:, slice(*place.columns)]
        if values.shape[1] != place.width:
            raise SiteError(
                f"{place.name!r} has {values.shape[1]} features where {place.width} were expected; "
                "this version of vLLM is not one that this adapter reads"
            )
        if more is not None and more.shape != values.shape:
            values, more = values + more, None
        self._store(place.source, values.detach(), None if more is None else more.detach())

    def _read(
        self, place: Place, module: nn.Module, args: Any, kwargs: Any, output: Any
    ) -> tuple[Tensor | Any, Tensor | None]:
        """What is at a place; the stream as two parts whose sum it is, where it comes so."""
        if place.side == "out":
            if not place.stream:
                return output[0] if isinstance(output, tuple) else output, None
            if isinstance(output, Tensor):
                return output, None
            hidden, residual = _two(place, output)
            if place.module not in self._proven:
                self._unproven[place.module] = hidden, residual
            return hidden, residual
        given = (*args, *kwargs.values())
        if not place.stream:
            return given[0], None
        if type(module).__name__ in ADDING:  # the norm between attention and MLP
            if len(given) != 2:
                raise SiteError(f"{place.name!r} is not where this model adds up its stream")
            return given[0], given[1]
        if module.__class__.__name__.endswith("Norm"):
            return given[0], None
        hidden = _argument(module, args, kwargs, "hidden_states")
        return hidden, _argument(module, args, kwargs, "residual")

    def _prove(self, path: str, adds: nn.Module, args: Any, kwargs: Any) -> None:
        """See that what a block returned in two parts is added by the norm that comes next."""
        parts = self._unproven.pop(path, None)
        if parts is None:
            return
        given = (*args, *kwargs.values())
        added = type(adds).__name__ in ADDING and len(given) == 2
        if not added or given[0] is not parts[0] or given[1] is not parts[1]:
            raise _unproven_stream(path)
        self._proven.add(path)

    def _end(self) -> None:
        for path in self._unproven:
            names = [p.name for p in self._places if p.module == path and p.stream]
            for name in names:
                self.problems.setdefault(name, _unproven_stream(path))
        self._unproven.clear()
        if self._step is not None:
            self._reads += 1
            for source in self._stored:
                self._times[source] = self._times.get(source, 0) + 1
            for place in self._places:
                if self._times.get(place.source, self._reads) != self._reads:
                    self.problems.setdefault(place.name, _sometimes(place.name))
        self._step = None

    # -- whole texts -----------------------------------------------------------------------------

    def settle(self, *, under_way: bool) -> int:
        """Hand on everything that has ended; returns how many texts have not.

        Args:
            under_way: whether the engine still has requests. If not, all texts have ended.
        """
        self.texts.end(self._runner.requests if under_way else ())
        self.deliver()
        return len(self.texts)

    def deliver(self) -> None:
        """Hand on the texts that have ended."""
        pieces = self.texts.take()
        # The engine's steps run in inference mode, whose tensors nobody may write to later.
        with torch.inference_mode(False), torch.no_grad():
            for rows, slots, real in padded({n: p.slots for n, p in pieces.items()}, self._most):
                self._hand_on([pieces[row] for row in rows], slots, real)
        self.waiting.release([slot for piece in pieces.values() for slot in piece.slots])

    def _hand_on(self, pieces: list[Piece], slots: Tensor, real: Tensor) -> None:
        tokens = self.waiting.rows(TOKENS, slots).cpu()
        counts = counting(pieces, tokens, real, self._special)
        mask = None if bool(counts.all()) else counts
        rows = torch.tensor([piece.row for piece in pieces])
        documents = torch.tensor([piece.document for piece in pieces])
        missing = int((real & ~counts).sum())
        why = "special tokens" if pieces[0].known is None else "the data"
        read = Tokens(tokens, self._text)
        shared: dict[Any, Any] = {}
        for place in self._places:
            if place.name in self.problems or place.source not in self.waiting:
                continue
            values = self.waiting.rows(place.source, slots)
            if place.heads is not None:
                values = values.reshape(*slots.shape, place.heads, -1)
            if missing:
                tally = self.left_out.setdefault(place.name, {})
                tally[why] = tally.get(why, 0) + missing
            axes = FEATURES if place.heads is None else HEADS
            found = Activations(values, axes, mask, rows, documents, read, shared)
            self._guarded([place.name], self._sink, place.name, found)
            self.fired[place.name] += 1

    def report(self) -> dict[str, Any]:
        """What is to be known of the reading, as JSON values."""
        return {
            "fired": self.fired,
            "problems": {
                name: [type(error).__name__ if isinstance(error, PolycodeError) else "SiteError",
                       _sentence(name, error)]
                for name, error in self.problems.items()
            },
            "left_out": self.left_out,
            "texts": self.texts.count,
            "steps": self._steps,
            "repeated": self.texts.ledger.repeated,
            "waiting": self.waiting.nbytes(),
        }  # fmt: skip


def _sentence(name: str, error: Exception) -> str:
    if isinstance(error, PolycodeError):
        return str(error)
    return f"{name!r} could not be read ({type(error).__name__}: {error})"


def _two(place: Place, output: Any) -> tuple[Tensor, Tensor]:
    """The two parts of the stream that a block returns."""
    if isinstance(output, tuple) and len(output) == 2:
        hidden, residual = output
        if isinstance(hidden, Tensor) and isinstance(residual, Tensor):
            return hidden, residual
    raise SiteError(
        f"the block {place.module!r} returns a {type(output).__name__}, of which it is not known "
        "what its residual stream is; name other sites"
    )


def _sometimes(name: str) -> SiteError:
    return SiteError(
        f"the model passes through {name!r} in some steps and not in others, so its texts are not "
        "whole; leave it out"
    )


def _unproven_stream(path: str) -> SiteError:
    return SiteError(
        f"the block {path!r} returns two tensors, and nothing that follows adds just these, so it "
        "is not proven that its residual stream is their sum; name other sites, or use "
        "adapter='transformers' on the folder"
    )


def _argument(module: nn.Module, args: Any, kwargs: Any, name: str) -> Any:
    """An argument of a call by its name; None where it was not given."""
    if name in kwargs or not args:
        return kwargs.get(name)
    order = list(inspect.signature(module.forward).parameters)
    place = order.index(name) if name in order else len(args)
    return args[place] if place < len(args) else None


def _packing(metadata: Any, runner: Any) -> tuple[list[str], list[int], list[int]]:
    """The requests of a step, where their rows begin, and how many tokens each has by now."""
    if isinstance(metadata, list):
        raise DataError(
            "the engine runs parts of a step side by side (micro-batches), which this adapter does "
            "not read; make the LLM without enable_dbo"
        )
    if isinstance(metadata, Mapping):
        metadata = next(iter(metadata.values()))
    requests = [str(name) for name in runner.input_batch.req_ids]

    def listed(name: str) -> list[int]:
        found = getattr(metadata, f"{name}_cpu", None)
        found = getattr(metadata, name) if found is None else found
        return [int(n) for n in found.tolist()]

    starts = listed("query_start_loc")[: len(requests) + 1]
    return requests, starts, listed("seq_lens")[: len(requests)]
