"""Reads the tensors of sites in the passes of a model: axes, what counts, whose rows they are.

The one place where these are put together, for data that are ours and for workflows of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polycode_plugins.activations import Site, Tokens, default_axes
from polycode_plugins.adapters.base import Capture
from polycode_plugins.adapters.evidence.axes import (
    Laid,
    Reading,
    Shapes,
    lay,
    main_leaf,
)
from polycode_plugins.adapters.evidence.calls import Call, Calls
from polycode_plugins.adapters.evidence.counting import counted_of_batch, counted_of_call
from polycode_plugins.adapters.evidence.documents import (
    UNKNOWN,
    Documents,
    of_rows,
    packed_rows,
    past_of,
)
from polycode_plugins.adapters.evidence.layout import asked_axes, axes_of
from polycode_plugins.adapters.evidence.masks import Counted, Mask, asked, counted
from polycode_plugins.adapters.evidence.proof import Axes, Proof
from polycode_plugins.adapters.evidence.shadow import Place, proper
from polycode_plugins.adapters.hooks import Turns, is_fake, move_last, observe, tensor_of
from polycode_plugins.adapters.inputs import tokens_of
from polycode_plugins.errors import SiteError

_HELD = 4  # calls of which a tensor is held back until its axes are clear


@dataclass(frozen=True)
class Wanted:
    """A site and where its tensor is.

    Attributes:
        site: the site.
        module: whose output or input it is.
        call: which call of it in a pass; None where it is called once.
        where: "out" or "in".
    """

    site: Site
    module: nn.Module
    call: int | None
    where: str

    @property
    def place(self) -> Place:
        """As `Axes` knows it."""
        return self.module, self.call or 0, self.where


@dataclass(frozen=True)
class _Held:
    """A tensor that waits for its axes."""

    values: Tensor
    call: Call
    rows: int | None
    length: int | None
    documents: Tensor | None


class Reader:
    """Hooks on the modules of some sites, and what is known of the passes they fire in.

    Args:
        root: the model.
        wanted: the sites.
        live: where what is read goes.
        axes: what is proven about the model.
        named: axes that the user named, see `layout.axes_of`.
        mask: what counts, see `masks`.
        handles: gets the handles of the hooks.
        special: ids of tokens that do not count, in somebody else's workflow.
        text: what the id of a token stands for.
        aside: whether what runs is no part of a pass.
    """

    def __init__(
        self,
        root: nn.Module,
        wanted: Sequence[Wanted],
        live: Capture,
        axes: Axes,
        *,
        named: Mapping[str, Sequence[str]] | Sequence[str] | None,
        mask: Mask,
        handles: list[RemovableHandle],
        special: Sequence[int] = (),
        text: Callable[[int], str] | None = None,
        aside: Callable[[], bool] = lambda: False,
    ) -> None:
        self.live = live
        self.calls = Calls(around(root, [w.module for w in wanted]), handles, aside=aside)
        self._special = list(special)
        self._text = text
        self._aside = aside
        self.calls.begin, self.calls.end = self._begin, self._end
        self._wanted = list(wanted)
        self._axes = axes
        self._named = named
        self._mask = mask
        self._proof: Proof | None = None
        self._rows: int | None = None
        self._length: int | None = None
        self._documents = Documents()
        self._turns = Turns()
        self._shapes: dict[str, Shapes] = {}
        self._held: dict[str, list[_Held]] = {}
        self._votes: Any = None
        self._root = root
        self._before: list[tuple[nn.Module, RemovableHandle]] = []
        live.unclear = self._documents.reasons
        live.when_closing(self._settle)
        self._hang(handles)

    def _hang(self, handles: list[RemovableHandle]) -> None:
        for module in {id(w.module): w.module for w in self._wanted}.values():
            mine = [w for w in self._wanted if w.module is module]
            name = mine[0].site.name
            inside = [w for w in mine if w.where == "in"]
            outside = [w for w in mine if w.where == "out"]
            after = partial(self._after, module, name, outside)
            before = partial(self._before_it, f"{name} in", inside) if inside else None
            self.calls.late.add(id(module))
            handle = observe(module, after, handles, inputs=before)
            if handle is not None:
                self._before.append((module, handle))

    def _before_it(self, name: str, wanted: list[Wanted], given: Any) -> None:
        if self._aside():
            return
        self.fire(wanted, self.calls.next_call(name), given)

    def _after(self, module: nn.Module, name: str, wanted: list[Wanted], output: Any) -> None:
        if self._aside():
            return
        try:
            self.fire(wanted, self.calls.next_call(name), output)
        finally:
            self.calls.leave(module, output)

    # -- passes ----------------------------------------------------------------------------------

    def _begin(self, call: Call) -> None:
        try:
            self._turns.begin()
        except SiteError as error:  # of which everything else comes that may go wrong now
            self.live.problems.update(dict.fromkeys(self.live.fired, error))
        for module, handle in self._before:
            move_last(module, handle)
        self.live.attempt(self.live.fired, lambda: self._enter(call))

    def _enter(self, call: Call) -> None:
        self._rows = self._length = self._proof = None
        main = main_leaf(call.arguments)
        if main is None or is_fake(main.values) or main.values.numel() == 0:
            return
        ours = self.live.batch is not None
        places = [w.place for w in self._wanted]
        self._proof = self._axes.proof(call, places, of_rows=ours)
        self._rows, self._length = self._proof.input.sizes(main)
        call.notes["past"] = past_of(call.arguments)  # it grows while the pass runs
        if not ours:
            self._documents.begin(call.arguments, self._rows, self._length)

    def _end(self, call: Call) -> None:
        self._turns.end()
        if self.live.batch is None and self._proof is not None:
            rows = self._rows
            self.live.attempt(
                self.live.fired,
                lambda: self._documents.end(call.arguments, call.output, rows, _ends(call)),
            )

    @contextmanager
    def within(self, call: Call) -> Iterator[None]:
        """Read tensors of a pass that ran elsewhere, as `call` describes it."""
        self.calls.innermost = call
        self._enter(call)
        try:
            yield
        finally:
            self.calls.innermost = None

    # -- tensors ---------------------------------------------------------------------------------

    def fire(self, wanted: Sequence[Wanted], index: int, value: Any) -> None:
        """Take in what a module was given or has returned, at its call `index` of this pass."""
        for one in wanted:
            name = one.site.name
            if name not in self.live.problems:
                self.live.attempt([name], partial(self._receive, one, index, value))

    def _receive(self, one: Wanted, index: int, value: Any) -> None:
        site = one.site
        if one.call is None and index > 0:
            raise SiteError(
                f"{site.name!r} is called more than once in a forward pass; say which call: "
                f"'{site.name}:0', '{site.name}:1', ..."
            )
        if one.call not in (None, index):
            return
        what = "input" if one.where == "in" else "output"
        values = tensor_of(value, site.name, what=what)
        if is_fake(values):
            return
        if values.numel() == 0:
            self.live.fired[site.name] += 1
            return
        call = self.calls.innermost
        if call is None:
            return
        held = _Held(values, call, self._rows, self._length, self._of_pass(call))
        reading = self._reading(one, values)
        if reading is not None:
            self._flush(one, reading)
            self._deliver(one, reading, held)
            return
        self.live.fired[site.name] += 1
        waiting = self._held.setdefault(site.name, [])
        if self.live.batch is not None or len(waiting) >= _HELD:
            raise SiteError(not_read(site.name, values, self._why(), ask=True))
        waiting.append(
            _Held(values.detach().clone(), call, self._rows, self._length, held.documents)
        )

    def _reading(self, one: Wanted, values: Tensor) -> Reading | None:
        """The axes of a tensor; None while they are not clear.

        Raises:
            SiteError: where they never will be, with how to name them.
        """
        name = one.site.name
        named = asked_axes(name, values, self._named)
        if named is not None:
            at = named.index("batch")
            per_row = 1
            if self._rows is not None and values.shape[at] != self._rows:
                return Reading(named, order="unknown", routed=True)
            return Reading(named, per_row=per_row)
        proof = self._proof
        known = None if proof is None else proof.readings.get(one.place)
        if known is not None and known.axes:
            if lay(known, values, self._rows, self._length) is not None:
                return known
            raise SiteError(
                not_read(
                    name, values, "its shape is not the one that it had on other inputs", ask=True
                )
            )
        if known is not None and known.why:
            raise SiteError(not_read(name, values, known.why, ask=known.ask))
        return self._by_shapes(one, values, seen=known is None)

    def _by_shapes(self, one: Wanted, values: Tensor, *, seen: bool) -> Reading | None:
        """The axes of a tensor of a model that cannot be tried."""
        name, proof = one.site.name, self._proof
        if proof is not None and proof.not_yet:
            return None
        main = main_leaf(self.calls.outermost.arguments) if self.calls.outermost else None
        plain = main is not None and main.values.dim() == 2 and main.values.is_floating_point()
        if values.dim() == 2 and (plain or main is None):
            return Reading(default_axes(2))
        if values.dim() == 2 and not seen:
            return Reading(("batch", "feature"), order="unknown", routed=True)
        if values.dim() > 3 and (main is None or main.values.dim() > 3):
            if self._votes is None:
                from polycode_plugins.adapters.evidence.layout import static_evidence

                self._votes = static_evidence(self._root)
            return Reading(axes_of(name, one.module, values, self._votes))
        if proof is None or proof.input.batch is None:
            why = "" if proof is None else proof.input.why
            raise SiteError(not_read(name, values, why or "its input is not known", ask=True))
        shapes = self._shapes.setdefault(name, Shapes())
        shapes.note(values.shape, self._rows, self._length)
        return shapes.reading()

    def _why(self) -> str:
        tried = "" if self._proof is None else self._proof.why_not
        return "its sizes leave more than one reading" + (
            f", and the model could not be tried on others ({tried})" if tried else ""
        )

    def _of_pass(self, call: Call) -> Tensor | None:
        """The documents of the pass under way, where they are not simply its rows."""
        batch = self.live.batch
        if batch is None:
            return self._documents.of_pass
        around = self.calls.outermost
        if around is None or self._rows != len(batch):
            return None
        if "documents" not in around.notes:
            known = batch.known_documents()
            known = batch.rows if known is None else known
            arguments = _as_they_came(around.arguments, batch.inputs)
            around.notes["documents"] = packed_rows(arguments, known, self._rows, self._length)
        found: Tensor | None = around.notes["documents"]
        return found

    # -- what goes on ----------------------------------------------------------------------------

    def _deliver(self, one: Wanted, reading: Reading, held: _Held) -> None:
        laid = lay(reading, held.values, held.rows, held.length)
        if laid is None:
            raise SiteError(
                not_read(one.site.name, held.values, "its shape does not fit its axes", ask=True)
            )
        what = self._counted(laid, held)
        mask = what.mask
        if mask is not None and laid.per_row > 1:
            mask = mask.repeat_interleave(laid.per_row, dim=0)
        self.live.receive(
            one.site,
            laid.values,
            laid.axes,
            mask=mask,
            why=what.why,
            documents=_documents_of(laid, held.documents),
            per_row=laid.per_row,
            tokens=self._tokens(held.call) if self.live.batch is None else None,
        )

    def _tokens(self, call: Call) -> Tokens | None:
        """What the stream of a module reads, where that is seen."""
        for around_it in call.outwards():
            tokens = tokens_of(around_it.arguments.get("input_ids"))
            if tokens is not None:
                return replace(tokens, text=self._text)
        return None

    def _counted(self, laid: Laid, held: _Held) -> Counted:
        rows = laid.values.shape[0] // laid.per_row if laid.per_row else None
        at = laid.axes.index("position") if "position" in laid.axes else None
        positions = None if at is None else laid.values.shape[at]
        if not isinstance(self._mask, str):
            return asked(self._mask, _outermost(held.call).arguments, rows, positions)
        if self.live.batch is None:
            return counted_of_call(
                held.call, rows, positions, special=self._special, ended=self._documents.ended
            )
        if self.live.batch.mask is not None:
            return counted_of_batch(self.live.batch.mask, rows, positions)
        return counted(held.call, rows, positions)

    def _flush(self, one: Wanted, reading: Reading) -> None:
        for held in self._held.pop(one.site.name, []):
            self.live.fired[one.site.name] -= 1
            self._deliver(one, reading, held)

    def _settle(self) -> None:
        """Read what is still held back, now that the model has run, or say what is not known."""
        for one in self._wanted:
            waiting = self._held.get(one.site.name)
            if waiting and one.site.name not in self.live.problems:
                self.live.attempt([one.site.name], partial(self._settle_one, one, waiting[0]))

    def _settle_one(self, one: Wanted, held: _Held) -> None:
        places = [w.place for w in self._wanted]
        proof = self._axes.proof(_outermost(held.call), places)
        reading = proof.readings.get(one.place)
        if reading is None or not reading.axes:
            why, ask = self._why(), True
            if reading is not None and reading.why:
                why, ask = reading.why, reading.ask
            raise SiteError(not_read(one.site.name, held.values, why, ask=ask))
        self._rows, self._length = proof.input.sizes(main_leaf(_outermost(held.call).arguments))
        waiting = self._held[one.site.name]
        self._held[one.site.name] = [
            replace(h, rows=rows, length=length)
            for h in waiting
            for rows, length in [proof.input.sizes(main_leaf(_outermost(h.call).arguments))]
        ]
        self._flush(one, reading)


def _documents_of(laid: Laid, documents: Tensor | None) -> Tensor | None:
    """Documents [batch] or [batch, position] of a tensor, given those of the input."""
    if laid.per_row == 0:
        return torch.full((laid.values.shape[0],), UNKNOWN)
    if documents is not None and laid.per_row > 1:
        documents = documents.repeat_interleave(laid.per_row, dim=0)
    return of_rows(documents, laid.axes, laid.values.shape)


def _as_they_came(arguments: Mapping[str, Any], inputs: Any) -> dict[str, Any]:
    """The arguments of a pass of our own: not where the model has them, since a GPU that is asked
    has to be waited for."""
    given = inputs if isinstance(inputs, Mapping) else {}
    return {
        name: given[name]
        if isinstance(value, Tensor)
        and isinstance(given.get(name), Tensor)
        and given[name].shape == value.shape
        else value
        for name, value in arguments.items()
    }


def _ends(call: Call) -> list[int]:
    """The tokens that end a text that is being generated, by the model's configuration."""
    for holder in ("generation_config", "config"):
        ends = getattr(getattr(proper(call.module), holder, None), "eos_token_id", None)
        if ends is not None:
            return [int(e) for e in ends] if isinstance(ends, list | tuple) else [int(ends)]
    return []


def _outermost(call: Call) -> Call:
    *_, last = call.outwards()
    return last


def around(root: nn.Module, modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Some modules of a model and all around them, outermost first."""
    wanted = {id(m) for m in modules}
    found: dict[int, nn.Module] = {id(root): root}
    for path, module in root.named_modules(remove_duplicate=False):
        if id(module) in wanted:
            parts = path.split(".") if path else []
            for end in range(len(parts) + 1):
                part = root.get_submodule(".".join(parts[:end]))
                found.setdefault(id(part), part)
    return list(found.values())


def not_read(name: str, values: Tensor, why: str, *, ask: bool) -> str:
    """Why a tensor cannot be read, with how to name its axes where that would help."""
    shape = tuple(values.shape)
    if not ask:
        return f"{name!r} holds {shape}, and {why}; leave it out"
    usual = {2: "('batch', 'feature')", 3: "('batch', 'position', 'feature')"}
    example = usual.get(values.dim(), "('batch', 'position', 'head', 'feature')")
    return (
        f"{name!r} holds {shape}, and its axes are ambiguous; name them, for example "
        f"axes={{{name!r}: {example}}} ({why})"
    )
