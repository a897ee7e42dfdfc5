"""The `transformer-lens` adapter: TransformerBridge (3.x, 4.x) and HookedTransformer (2.x, 3.x).

Both are read through what they share (`hook_dict`, HookPoint.add_hook), so one code path serves
all majors. Nothing of TransformerLens is imported unless a model has to be loaded by name.
"""

from __future__ import annotations

import inspect
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polycode_plugins.activations import FEATURE_AXES, Site
from polycode_plugins.adapters.base import Adapter, Batch, Capture, Sink
from polycode_plugins.adapters.evidence.documents import of_rows
from polycode_plugins.adapters.evidence.masks import Mask, asked
from polycode_plugins.adapters.evidence.points import hook_axes, refuse_decoder
from polycode_plugins.adapters.hooks import StopForward, eager, observe, own_pass, removed_after
from polycode_plugins.adapters.inputs import device_of, tensor_batches, to_device
from polycode_plugins.adapters.patterns import match
from polycode_plugins.adapters.text import check_tokens, language_batches, usual_frame
from polycode_plugins.adapters.transformer_lens.hooks import Passes, Tap
from polycode_plugins.adapters.transformer_lens.loading import library_version, load_model
from polycode_plugins.adapters.transformer_lens.sites import (
    by_source,
    holds_tokens,
    usual_order,
    why_no_site,
)
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.data_options import DataOptions
from polycode_plugins.devices import as_found
from polycode_plugins.errors import DataError, ModelError, SiteError

_TRACED_POSITIONS = 8
_IGNORED_INPUTS = frozenset({"labels"})  # no activation depends on them


class TransformerLensAdapter(Adapter):
    """A TransformerLens model.

    Sites are hook points under both of their names where there are two, for example
    "blocks.0.mlp.hook_post" and, in TransformerLens 4, "blocks.0.mlp.out.hook_in".

    Args:
        model: a live TransformerBridge or HookedTransformer, the name of a model on the Hugging
            Face hub ("gpt2-xl"), a folder in Hugging Face format with its tokenizer, or a GGUF file
            (its weights are dequantised, which the record says).
        device: where to load a model given by name or folder; TransformerLens chooses by default.
        dtype: of a model given by name or folder: "float32" (the default), "bfloat16", ...
        trust_remote_code: run code that comes with such a model, this once; the record says so.
        prepend_bos: put the beginning-of-text token before each window. When None the model's own
            default decides, and where the tokenizer ends a text too, or knows no such token, what
            the tokenizer does ([CLS] and [SEP] of encoders). None of it enters the statistics
            unless special tokens are asked for.
        device_map: how to spread a model given by name or folder over devices ("auto", ...), as
            transformers takes it (TransformerLens 4).
        include_special: let special tokens into the statistics of somebody else's forward passes
            (`pc.attach`); padding stays out. `pc.analyze` has an argument of the same name.

    Raises:
        ModelError: for a name or folder that does not load or lacks a tokenizer or weights (which
            TransformerLens would make up), and for encoder-decoder models.
        PluginError: when TransformerLens is needed to load the model and is not installed.
    """

    name = "transformer-lens"
    finds_masks = True

    def __init__(
        self,
        model: Any,
        *,
        device: str | None = None,
        dtype: str | None = None,
        device_map: Any = None,
        trust_remote_code: bool = False,
        prepend_bos: bool | None = None,
        include_special: bool = False,
    ) -> None:
        self._name = None
        self._file: dict[str, Any] = {}
        if isinstance(model, str | Path):
            self._name = str(model)
            model, self._file = load_model(model, device, dtype, device_map, trust_remote_code)
        elif (device, dtype, device_map, trust_remote_code) != (None, None, None, False):
            raise ModelError(
                "device, dtype, device_map and trust_remote_code are for loading, and this model "
                "is live already; move it with model.to(...) first"
            )
        if not self.accepts(model):
            raise ModelError(
                f"{type(model).__name__} is not a TransformerLens model (no hook_dict and "
                "run_with_hooks); use the 'module' adapter for a plain nn.Module"
            )
        refuse_decoder("", model, self._name or "")
        self._model = model
        self._config = getattr(model, "cfg", None)
        # Keys and values of all layers would be kept for a next token that never comes.
        wrapped = getattr(getattr(model, "original_model", None), "forward", None)
        caches = wrapped is not None and "use_cache" in inspect.signature(wrapped).parameters
        self._without_cache = {"use_cache": False} if caches else {}
        self._prepend_bos = prepend_bos
        self._include_special = include_special
        self._silent: dict[str, str] = {}  # hook points that a trace found unusable, and why

    @classmethod
    def accepts(cls, model: object) -> bool:
        """A model with `hook_dict`, `hooks` and `run_with_hooks`, whatever its class."""
        return isinstance(model, nn.Module) and all(
            hasattr(model, name) for name in ("hook_dict", "hooks", "run_with_hooks")
        )

    @property
    def model(self) -> Any:
        """The live model."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, or None."""
        return getattr(self._model, "tokenizer", None)

    @property
    def _vocabulary(self) -> int | None:
        """How many tokens the model knows; None for a model that reads no tokens."""
        size = getattr(self._config, "d_vocab", None)
        return int(size) if size and size > 0 else None

    # -- sites -----------------------------------------------------------------------------------

    def sites(self, example: Batch | None = None) -> list[Site]:
        """Hook points under all of their names; with an example those that fire, in that order.

        Without one the order is the usual one of a transformer, and attention patterns, token ids
        and what TransformerLens keeps switched off are left out.
        """
        if example is not None:
            return self._trace(example)
        points = self._model.hook_dict
        aliases = by_source(points)
        usable = (s for s in aliases if not holds_tokens(s) and not why_no_site(s, s, self._config))
        return [
            Site(name, depth, source=source)
            for depth, source in enumerate(sorted(usable, key=usual_order))
            for name in aliases[source]
        ]

    def _trace(self, example: Batch) -> list[Site]:
        points = self._model.hook_dict
        aliases = by_source(points)
        with own_pass():
            return self._traced(example, points, aliases)

    def _traced(
        self, example: Batch, points: Mapping[str, Any], aliases: Mapping[str, list[str]]
    ) -> list[Site]:
        passes = Passes(self._model, self.tokenizer, include_special=False)
        fired: dict[str, tuple[tuple[str, ...], int]] = {}
        self._silent = {}

        def note(source: str, values: Any) -> None:
            try:
                axes = hook_axes(source, values, points[source], passes.shape, check=False)
                passes.counted(source, values, axes)
                passes.repeats(source, values)
            except SiteError as error:
                fired.pop(source, None)
                self._silent[source] = str(error)
                return
            sizes = zip(values.shape, axes, strict=True)
            width = math.prod(n for n, axis in sizes if axis in FEATURE_AXES)
            fired.setdefault(source, (axes, width))

        try:
            for source in aliases:
                if why_no_site(source, source, self._config) is None:
                    passes.taps.append(Tap(points[source], partial(note, source)))
            with undisturbed(self._model, train_mode=True), as_found():
                self._call(_corner(example))
        finally:
            passes.remove()
        return [
            Site(name, depth, axes, width, source)
            for depth, (source, (axes, width)) in enumerate(fired.items())
            for name in aliases[source]
        ]

    def example(self) -> Batch | None:
        """Four tokens, whatever they mean."""
        if self._vocabulary is None:
            return None
        tokens = torch.arange(4)[None] % self._vocabulary
        return Batch(tokens, rows=torch.zeros(1, dtype=torch.int64))

    def default_sites(self, sites: Sequence[Site]) -> list[str]:
        """The residual stream after each block."""
        for pattern in (r"blocks\.\d+\.hook_resid_post", r"(\w+_)?blocks?\.\d+\.hook_out"):
            blocks = [s.name for s in sites if re.fullmatch(pattern, s.name)]
            if blocks:
                return blocks
        return super().default_sites(sites)

    def _unknown(self, pattern: str, available: Sequence[Site]) -> str:
        aliases = by_source(self._model.hook_dict)
        every = [Site(name, source=s) for s, names in aliases.items() for name in names]
        for site in match(pattern, every):
            return (
                why_no_site(site.name, site.source, self._config)
                or self._silent.get(site.source)
                or f"{site.name!r} exists and did not fire; the model does not pass through it on "
                "this input, so leave it out"
            )
        return super()._unknown(pattern, available)

    # -- capture ---------------------------------------------------------------------------------

    @contextmanager
    def capture(self, sites: Sequence[Site], sink: Sink) -> Iterator[Capture]:
        """Hooks on the sites while open; nobody's `reset_hooks` ends them.

        In somebody else's workflow padding and special tokens are found in what the model reads.
        """
        points = self._model.hook_dict
        live = Capture(sites, sink)
        passes = Passes(
            self._model,
            self.tokenizer,
            include_special=self._include_special,
            guard=partial(live.attempt, list(live.fired)),
            ours=lambda: live.batch is not None,
        )
        live.unclear = passes.documents.reasons
        live.when_closing(passes.flush)  # a pass that ended before the first block
        try:
            with eager():
                for site in sites:
                    point = points[site.name]
                    take = partial(self._take, live, passes, site, point)
                    passes.taps.append(Tap(point, take))
                yield live
                passes.flush()
        finally:
            passes.remove()

    def _take(self, live: Capture, passes: Passes, site: Site, point: Any, values: Any) -> None:
        if site.name not in live.problems:
            live.attempt(
                [site.name], lambda: _receive(live, passes, site, point, values, self.mask)
            )

    def forward(self, batch: Batch, stop_after: Site | None = None) -> None:
        """Run the model on a batch and leave the pass once `stop_after` has fired."""
        if stop_after is None:
            self._call(batch)
            return
        handles: list[RemovableHandle] = []

        def stop(_output: Any) -> None:
            raise StopForward

        with removed_after(handles):
            observe(self._model.hook_dict[stop_after.name], stop, handles)
            try:
                self._call(batch)
            except StopForward:
                return

    def _call(self, batch: Batch) -> None:
        inputs, device = batch.inputs, device_of(self._model)
        if self._vocabulary is None and not isinstance(inputs, Mapping):
            inputs = to_device(inputs, device)
            self._model(*(inputs if isinstance(inputs, tuple) else (inputs,)))
            return
        if not isinstance(inputs, Mapping):
            inputs = {"input_ids": inputs}
        others = {k: v for k, v in inputs.items() if k not in _IGNORED_INPUTS}
        tokens, attention = others.pop("input_ids"), others.pop("attention_mask", None)
        known = inspect.signature(self._model.forward).parameters
        # Without padding the mask says nothing, and without it the model takes its fast path.
        if attention is not None and not bool(attention.all()):
            name = "attention_mask" if "attention_mask" in known else "one_zero_attention_mask"
            others[name] = attention
        unknown = [k for k in others if k not in known]
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            raise DataError(
                f"the batches hold {unknown[0]!r}, which {type(self._model).__name__} does not "
                "read; leave it out of them"
            )
        tokens, others = to_device((tokens, others), device)
        with _no_advice_on_padding():
            self._model(tokens, **others, **self._without_cache)

    # -- data ------------------------------------------------------------------------------------

    def batches(self, data: Any, options: DataOptions) -> Iterable[Batch]:
        """Windows of text, or tokens as they are.

        Args:
            data: a file, a folder, JSON lines, `hf:name`, None for the embedded corpus; texts or
                conversations in a list, generator, data set, column, data frame or loader; or
                tokens int64 [rows, position] (or rows or batches of such), in which every special
                token of the tokenizer is left out of the statistics. For a model that reads no
                tokens, tensors as its `forward` takes them.
        """
        if self._vocabulary is None:
            return tensor_batches(data, options)
        prepend = self._prepend_bos
        if prepend is None and self.tokenizer is not None:
            begins = bool(getattr(self._config, "default_prepend_bos", True))
            prepend = usual_frame(self.tokenizer, begins=begins)
        batches = language_batches(
            data,
            self.tokenizer,
            options,
            longest=int(getattr(self._config, "n_ctx", options.context)),
            prepend_bos=prepend,
        )
        return (self._readable(batch) for batch in batches)

    def _readable(self, batch: Batch) -> Batch:
        """The batch, if the model has an embedding for each of its tokens and positions."""
        tokens: Tensor = (
            batch.inputs["input_ids"] if isinstance(batch.inputs, dict) else batch.inputs
        )
        check_tokens(tokens, self._vocabulary)
        room = int(getattr(self._config, "n_ctx", tokens.shape[1]))
        kind = getattr(self._config, "positional_embedding_type", "standard")
        if kind == "standard" and tokens.shape[1] > room:
            raise DataError(
                f"the rows have {tokens.shape[1]} tokens, and this model reads {room} positions; "
                "cut them shorter"
            )
        return batch

    def describe(self) -> dict[str, Any]:
        """Adds name, size, version and compatibility mode (it changes hook_resid_post)."""
        config = self._config
        return {
            **super().describe(),
            "name": self._name or getattr(config, "model_name", None),
            "layers": getattr(config, "n_layers", None),
            "width": getattr(config, "d_model", None),
            "compatibility_mode": bool(getattr(self._model, "compatibility_mode", False)),
            "normalization": getattr(config, "normalization_type", None),
            "transformer_lens": library_version(),
            **self._file,
        }


def _receive(
    live: Capture, passes: Passes, site: Site, point: Any, values: Any, asked_for: Mask
) -> None:
    axes = hook_axes(site.name, values, point, passes.shape, check=False)
    if passes.repeats(site.name, values):
        return
    if values.numel() == 0:
        live.fired[site.name] += 1
        return

    def deliver(*, early: bool) -> None:
        own, mask = passes.counted(site.name, values, axes, early=early)
        why = passes.why
        documents = None
        if live.batch is not None:
            mask = None  # the data say what counts
        else:
            documents = of_rows(passes.documents.of_pass, axes, own.shape)
            if not isinstance(asked_for, str):
                places = own.shape[axes.index("position")] if "position" in axes else None
                what = asked(asked_for, passes.arguments, own.shape[0], places)
                mask, why = what.mask, what.why
        live.receive(
            site, own, axes, mask=mask, why=why, documents=documents, tokens=passes.tokens()
        )

    if live.batch is not None:
        deliver(early=False)
    else:
        passes.when_known(lambda *, early: live.attempt([site.name], partial(deliver, early=early)))


@contextmanager
def _no_advice_on_padding() -> Iterator[None]:
    """Keep transformers from warning of padding where rows merely begin with the padding token.

    GPT-2's one special token begins, ends and pads; padded rows are never given without a mask.
    """

    def keep(record: logging.LogRecord) -> bool:
        return "attention_mask" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def _corner(example: Batch) -> Batch:
    """A row and a few positions of a batch of tokens: enough to see which hook points fire."""

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dim() == 2 and not value.is_floating_point():
            return value[:1, :_TRACED_POSITIONS]
        return value[:1] if isinstance(value, Tensor) and value.dim() else value

    inputs = example.inputs
    if isinstance(inputs, Mapping):
        inputs = {k: cut(v) for k, v in inputs.items()}
    elif isinstance(inputs, tuple):
        inputs = tuple(cut(v) for v in inputs)
    else:
        inputs = cut(inputs)
    return Batch(inputs, rows=example.rows[:1])
