"""What the `transformer-lens` adapter hangs on a model: taps on hook points, a watch on passes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polycode_plugins.activations import Tokens
from polycode_plugins.adapters.evidence.calls import named_arguments
from polycode_plugins.adapters.evidence.documents import Documents
from polycode_plugins.adapters.evidence.points import check_alike, shapeless
from polycode_plugins.adapters.hooks import (
    Turns,
    in_backward,
    is_fake,
    passes_of_others,
    uncompiled,
    without_values,
)
from polycode_plugins.adapters.text import padding, regular, special_ids, token_text
from polycode_plugins.errors import SiteError


class Tap:
    """An observer of one HookPoint that runs after all other hooks and changes nothing.

    It is added through TransformerLens, which converts some tensors for its hooks and leaves some
    hook points out while they have none. It is permanent, so that `reset_hooks()` leaves it alone;
    and where even `reset_hooks(including_permanent=True)` took it off, the next pass puts it back.
    """

    def __init__(self, point: Any, receive: Callable[[Any], None]) -> None:
        self._point = point
        self._receive = receive
        self._order = point.register_forward_pre_hook(uncompiled(self.settle))
        self._look = uncompiled(self._looked)
        self._of_others = passes_of_others()
        self._handle: Any = None
        self.settle()

    def settle(self, *_: Any) -> None:
        """Be there, and be the last: an ablation added after us must not go unseen."""
        hooks = self._point._forward_hooks
        if self._handle is None or self._handle.hook.id not in hooks:
            self._point.add_hook(self._take, is_permanent=True)
            self._handle = self._point.fwd_hooks[-1]
        elif next(reversed(hooks)) != self._handle.hook.id:
            hooks.move_to_end(self._handle.hook.id)

    def _take(self, tensor: Any, *, hook: Any) -> None:
        self._look(tensor)

    def _looked(self, tensor: Any) -> None:
        # What activation checkpointing computes again has been seen, a dry run has no values.
        if self._of_others():
            return
        if not in_backward() and not without_values() and not is_fake(tensor):
            self._receive(tensor)

    def remove(self) -> None:
        """Take off this hook alone: `HookPoint.remove_hooks` would take the user's with it."""
        self._order.remove()
        self._handle.hook.remove()
        self._point.fwd_hooks[:] = [h for h in self._point.fwd_hooks if h is not self._handle]
        del self._receive, self._handle, self._order, self._look  # which refer back to here


class Passes:
    """Watches the forward passes of a model: where one begins, and which of its positions count.

    `run_with_hooks` and `generate` do not go through the `__call__` of the model. What they all go
    through is the wrapped model of a TransformerBridge, and the embedding and blocks of a
    HookedTransformer. The latter shows its attention mask, and while it generates what it reads, in
    the first block only, so activations of the embedding wait for that (`when_known`).

    Args:
        model: the TransformerLens model.
        tokenizer: its tokenizer, which knows the special tokens; None when it has none.
        include_special: let special tokens count; padding never does.
        guard: calls what may fail; in somebody else's workflow it keeps what is raised.
        ours: whether the pass under way is of data that say what counts and what belongs together:
            then neither is read.

    Attributes:
        shape: (batch, position) of the tokens of the pass under way; None when it has none.
        mask: bool [batch, position], True where a position counts; None when all do.
        why: where the mask is from.
        arguments: what the model was called with, by name, as far as it is known.
        documents: those of the rows.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        include_special: bool,
        guard: Callable[[Callable[[], None]], None] = lambda read: read(),
        ours: Callable[[], bool] = lambda: False,
    ) -> None:
        self.shape: tuple[int, int] | None = None
        self.mask: Tensor | None = None
        self.taps: list[Tap] = []
        self.why = ""
        self.arguments: dict[str, Any] = {}
        self.documents = Documents()
        self._guard = guard
        self._ours = ours
        self._tokenizer = tokenizer
        self._include_special = include_special
        self._model: Any = model
        self._text = token_text(tokenizer)
        self._special = [] if include_special else special_ids(tokenizer)
        self._tokens: Tensor | None = None
        self._firsts: dict[str, Tensor] = {}
        self._waiting: list[Callable[..., None]] | None = None
        self._embedded: Tensor | None = None
        self._next_block = 0
        self._distinct = True  # no block is run in a loop
        self._handles: list[RemovableHandle] = []
        self._of_others = passes_of_others()
        self._turns = Turns()
        original, embed = getattr(model, "original_model", None), getattr(model, "embed", None)
        blocks = getattr(model, "blocks", None)
        self.watched = True
        if isinstance(original, nn.Module):
            self._watch(original, self._enter_wrapped)
            self._watch_end(original)
        elif isinstance(embed, nn.Module) and isinstance(blocks, nn.ModuleList):
            self._watch(embed, self._enter_embedding)
            places = {id(block): index for index, block in enumerate(blocks)}
            self._distinct = len(places) == len(blocks)
            for index in places.values():
                self._watch(blocks[index], partial(self._enter_block, index))
            if len(blocks):
                self._watch_end(blocks[-1])
        else:
            self.watched = False  # a HookedRootModule of somebody's own: every position counts

    def _watch(self, module: nn.Module, note: Callable[[Any, Any], None]) -> None:
        def enter(_module: nn.Module, args: Any, kwargs: Any) -> None:
            if not in_backward() and not without_values() and not self._of_others():
                self._guard(lambda: note(args, kwargs))

        self._handles.append(module.register_forward_pre_hook(uncompiled(enter), with_kwargs=True))

    def _watch_end(self, module: nn.Module) -> None:
        def leave(_module: nn.Module, _args: Any, output: Any) -> None:
            if in_backward() or without_values() or self._of_others():
                return
            self._turns.end()
            rows = None if self.shape is None else self.shape[0]
            if not self._ours():
                self._guard(lambda: self.documents.end(self.arguments, output, rows))

        self._handles.append(module.register_forward_hook(uncompiled(leave)))

    def _know_documents(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        if self._ours():
            return
        rows, length = self.shape if self.shape is not None else (None, None)
        self.documents.begin(arguments, rows, length)

    def remove(self) -> None:
        """Take every hook of this watch and its taps off the model."""
        while self._handles:
            self._handles.pop().remove()
        while self.taps:  # each refers back to this watch, which would wait for the collector
            self.taps.pop().remove()

    # -- where a pass begins ---------------------------------------------------------------------

    def _enter_wrapped(self, args: Any, kwargs: Any) -> None:
        self._begin(kwargs.get("input_ids", args[0] if args else None))
        self._read(kwargs.get("attention_mask"))
        original = self._model.original_model
        self._know_documents(named_arguments(original, args, kwargs))

    def _enter_embedding(self, args: Any, kwargs: Any) -> None:
        before = self._embedded
        self._begin(next(iter((*args, *kwargs.values())), None))
        self._read(None)
        self._waiting = []
        new = self._embedded = self._tokens
        # `generate` embeds the prompt and then one token after the other.
        if new is not None and new.shape[1] == 1 and before is not None and len(before) == len(new):
            self._embedded = torch.cat([before.to(new.device), new], dim=1)

    def _enter_block(self, index: int, args: Any, kwargs: Any) -> None:
        attention = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        if isinstance(attention, Tensor) and attention.dim() == 4:
            attention = attention[:, 0, 0] == 0  # HookedEncoder's is added to the scores
        if self._waiting is not None and (index == 0 or not self._distinct):
            self._take(next(iter((*args, *kwargs.values()))))
            self._read(attention)
            cache = kwargs.get("past_kv_cache_entry")
            self._know_documents({"input_ids": self._tokens, "past_kv_cache": cache})
        elif index != self._next_block and self._distinct:
            self._begin(None)  # start_at_layer: what the positions hold is unknown
            self._read(attention)
        self._next_block = index + 1
        self.flush()

    def _take(self, residual: Tensor) -> None:
        """The tokens the blocks read: the last embedded, as many as there are positions."""
        rows, positions = residual.shape[:2]
        known, self._tokens, self.shape = self._embedded, None, (rows, positions)
        if known is not None and len(known) == rows and known.shape[1] >= positions:
            self._tokens = known[:, -positions:]
        self._embedded = self._tokens

    def _begin(self, tokens: Any) -> None:
        self._turns.begin()
        self.flush()
        for tap in self.taps:
            tap.settle()
        self._firsts.clear()
        self._tokens = self.shape = self.mask = None
        self.documents.of_pass, self.arguments, self.why = None, {}, ""
        if isinstance(tokens, Tensor) and tokens.dim() == 2 and not tokens.is_floating_point():
            self._tokens = tokens
            self.shape = (tokens.shape[0], tokens.shape[1])

    def _read(self, attention: Any) -> None:
        """Which positions count, given the attention mask [batch, position]."""
        if self._ours():
            return
        tokens = None if self._tokens is None else self._tokens.cpu()  # once for all sites
        mask = regular(tokens, self._special)
        self.why = "" if mask is None else "special tokens"
        if isinstance(attention, Tensor) and attention.dim() == 2:
            real = attention.cpu().bool()
            if self.shape is not None:  # it also covers the keys in the cache, which come first
                real = real[:, -self.shape[1] :]
        elif tokens is not None and self._include_special:
            real = ~padding(tokens, self._tokenizer)
        else:
            self.mask = mask
            return
        self.mask = real if mask is None else mask & real
        self.why = "padding" if mask is None else "special tokens and padding"

    def when_known(self, deliver: Callable[..., None]) -> None:
        """Call `deliver(early=...)` as soon as it is known what the blocks read in this pass."""
        if self._waiting is None:
            deliver(early=False)
        else:
            self._waiting.append(deliver)

    def flush(self) -> None:
        """Deliver what waits."""
        waiting, self._waiting = self._waiting or [], None
        for deliver in waiting:
            deliver(early=True)  # which guards itself

    def counted(
        self, name: str, values: Tensor, axes: tuple[str, ...], *, early: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """The activations that are of this pass, and the mask for them.

        Args:
            name: the site.
            values: its activations.
            axes: of `values`.
            early: whether it fired before the blocks: `generate` embeds earlier positions again.

        Raises:
            SiteError: where rows or positions are not those of the tokens.
        """
        shape, mask = self.shape, self.mask
        if shape is None:
            return values, mask
        at = axes.index("position") if "position" in axes else None
        n = shape[1] if at is None else values.shape[at]
        if values.shape[0] == shape[0]:
            if n == shape[1]:
                return values, mask
            if n > shape[1] and early and at is not None:
                return values.narrow(at, n - shape[1], shape[1]), mask
            if n < shape[1] and "unembed" in name:  # some models unembed the last positions only
                return values, None if mask is None else mask[:, -n:]
        raise SiteError(shapeless(name, values, shape))

    def tokens(self) -> Tokens | None:
        """What the pass reads; None where that is not seen."""
        return None if self._tokens is None else Tokens(self._tokens, self._text)

    def repeats(self, name: str, values: Tensor) -> bool:
        """Whether a site fires again in one pass with the values it has shown before.

        The layer norm before the attention of a HookedTransformer runs for queries, keys and
        values: its samples are there once, not three times.

        Raises:
            SiteError: when it fires again with other values (a block that is run in a loop).
        """
        if not self.watched:
            return False
        digest = values.detach().sum(dtype=torch.float64)
        first = self._firsts.setdefault(name, digest)
        if first is digest:
            return False
        check_alike(name, first, digest)
        return True
