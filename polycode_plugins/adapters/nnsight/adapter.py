"""The `nnsight` adapter: models wrapped by nnsight, here or on a server.

Here, activations are read by forward hooks while nnsight runs the model: they see what the edits
and interventions leave behind, before an operation in place can overwrite it (a trace's cache keeps
no copy on a CPU). A server runs no hooks, so there a trace with a cache is sent.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from polycode_plugins.activations import Site
from polycode_plugins.adapters.base import Batch, Capture, Sink
from polycode_plugins.adapters.blocks import block_paths, sites_at
from polycode_plugins.adapters.inputs import tensor_batches
from polycode_plugins.adapters.module import ModuleAdapter
from polycode_plugins.adapters.nnsight.loading import load_model, load_weights, nnsight_library
from polycode_plugins.adapters.pretrained import short
from polycode_plugins.adapters.text import language_batches, special_ids, token_text, usual_frame
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import ModelError
from polycode_plugins.plugins import cause


class NNsightAdapter(ModuleAdapter):
    """A model of nnsight.

    Sites are modules, by the paths nnsight gives them ("model.transformer.h.0"; the first part is
    the model itself), with the index of the call where a module is called more than once. Their
    activations are the outputs, and with `:in` after the path the inputs (`.input`); the operations
    inside a module (`.source`) are not offered.

    Args:
        model: a live NNsight or TransformersModel, a plain nn.Module to wrap, the name of a model
            on the Hugging Face hub, a folder in Hugging Face format with its tokenizer, or a GGUF
            file (its weights are dequantised, which the record says).
        remote: True runs on NDIF (or the host nnsight is configured for), a URL on that host, and
            "local" is nnsight's dry run of it. Only for models that nnsight knows by name.
        tokenizer: of a model that brings none.
        prepend_bos: put the beginning-of-text token before each window of text; by default where
            the tokenizer has one. Where it also ends a text, or has no such token, what stands
            around a text is what the tokenizer puts there. None of it enters the statistics unless
            special tokens are asked for.
        device: where to load a model given by name or folder.
        dtype: of a model given by name or folder, as a name such as "float32" or "bfloat16".
        device_map: how to spread a model given by name or folder over devices ("auto", ...).
        trust_remote_code: run code that comes with such a model, this once; the record says so.
        axes: as for the `module` adapter.

    A model that nnsight has not loaded yet is loaded, unless it runs on a server.

    Raises:
        ModelError: for a name or folder that does not load, and a model that cannot run remotely.
        PluginError: when nnsight is missing.
    """

    name = "nnsight"
    generic = False

    def __init__(
        self,
        model: Any,
        *,
        remote: bool | str = False,
        tokenizer: Any = None,
        prepend_bos: bool | None = None,
        device: str | None = None,
        dtype: str | None = None,
        device_map: Any = None,
        trust_remote_code: bool = False,
        axes: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    ) -> None:
        self._remote = remote
        self._away = bool(remote) and remote != "local"
        self._prepend_bos = prepend_bos
        self._name = str(model) if isinstance(model, str | Path) else None
        self._file: dict[str, Any] = {}
        if self._name is not None:
            model, self._file = load_model(
                self._name,
                tokenizer,
                device,
                dtype,
                device_map,
                weights=not self._away,
                trust_remote_code=trust_remote_code,
            )
        elif (device, dtype, device_map, trust_remote_code) != (None, None, None, False):
            raise ModelError(
                "device=, dtype=, device_map= and trust_remote_code= are for models given by name "
                "or folder"
            )
        elif isinstance(model, nn.Module):
            model = nnsight_library().NNsight(model)
        if not self.accepts(model):
            raise ModelError(
                f"{type(model).__name__} is no nnsight model; pass an NNsight or "
                "TransformersModel, an nn.Module, a name or a folder"
            )
        if remote and not hasattr(model, "to_model_key"):
            raise ModelError(
                f"{type(model).__name__} exists in this process only, so it cannot run remotely; "
                "load it by name with nnsight's TransformersModel"
            )
        if not self._away and not getattr(model, "dispatched", True):
            load_weights(model)
        self._envoy = model
        self._tokenizer = tokenizer if tokenizer is not None else getattr(model, "tokenizer", None)
        module = model._module
        super().__init__(module, axes=axes)
        named = module.named_modules(prefix=model.path, remove_duplicate=False)
        self._modules = {path: m for path, m in named if m is not module}
        self._ordered = not self._away  # whether sites are known in the order in which they fire

    @classmethod
    def accepts(cls, model: object) -> bool:
        """A live model of nnsight's, or a part of one."""
        # Without nnsight imported nothing can be an object of its classes.
        nnsight = sys.modules.get("nnsight")
        return nnsight is not None and isinstance(model, nnsight.Envoy)

    @property
    def envoy(self) -> Any:
        """nnsight's object; `model` is the nn.Module inside it."""
        return self._envoy

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, or None."""
        return self._tokenizer

    # -- sites -----------------------------------------------------------------------------------

    def sites(self, example: Batch | None = None) -> list[Site]:
        """Module paths, as the `module` adapter finds them.

        Of a model on a server the example is traced without weights (nnsight's `scan`); where the
        model's code needs values for that, sites are in the order of definition, with a warning.
        """
        if example is None or not self._away:
            return super().sites(example)
        try:
            found = super().sites(example)
        except Exception as error:  # whatever a model's code does without values
            warnings.warn(
                f"the sites are in the order of definition, since this model does not run without "
                f"weights ({short(cause(error))})",
                stacklevel=2,
            )
            return super().sites(None)
        self._ordered = True
        return found

    def default_sites(self, sites: Sequence[Site]) -> list[str]:
        """The stem and the output of every block: the residual stream of a language model."""
        paths = block_paths(self._model, self._envoy.path)
        return sites_at(paths, [s.name for s in sites]) or super().default_sites(sites)

    # -- capture ---------------------------------------------------------------------------------

    @contextmanager
    def capture(self, sites: Sequence[Site], sink: Sink) -> Iterator[Capture]:
        """Hooks on the modules inside nnsight's model: traces and plain forward passes are seen.

        What a trace computes on the side (`model.lm_head(hidden)` in its body) is no part of the
        forward pass and not seen. A trace that stops at a site's own output (`tracer.stop()`) ends
        before the module has returned it, and that call of the site is not seen either.

        Raises:
            ModelError: for a model on a server, whose modules do not run here.
        """
        if self._away:
            raise ModelError(
                "this model runs on a server, where no hook can be attached; use analyze, which "
                "sends the sites to be kept along with each batch"
            )
        with super().capture(sites, sink) as live:
            yield live

    def _reading(self) -> dict[str, Any]:
        interleaver = self._envoy.interleaver
        return {
            "special": special_ids(self._tokenizer),
            "text": token_text(self._tokenizer),
            # A module called from the body of a trace: nnsight stands down meanwhile.
            "aside": lambda: bool(interleaver.mediators) and not interleaver.interleaving,
        }

    def _call(self, batch: Batch) -> None:
        inputs = batch.inputs
        arguments, keywords = _call_with(inputs)
        if self._away:
            with self._envoy.scan(*arguments, **keywords):
                pass
        else:
            # Without a body, but with the edits that are registered on the model.
            self._envoy.trace(*arguments, trace=False, **keywords)

    def _arguments(self, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return _call_with(batch.inputs)

    def run(self, batch: Batch, sites: Sequence[Site], sink: Sink, *, seed: int = 0) -> Any:
        """One forward pass with every site captured, here or, with `remote`, in a cached trace."""
        if not self._remote:
            return super().run(batch, sites, sink, seed=seed)
        if self._away and self._model.training:
            raise ModelError(
                "a server runs its models in evaluation mode; leave train_mode out, or run the "
                "model here"
            )
        live = Capture(sites, sink)
        live.batch = batch
        envoys = {id(envoy._module): envoy for envoy in self._envoy.modules()}
        wanted = [self._wanted(site) for site in sites]
        paths = {one.site.name: envoys[id(one.module)].path for one in wanted}
        _, last_call = self._module_of(sites[-1])
        last = (
            envoys[id(self._module_of(sites[-1])[0])] if self._ordered and not last_call else None
        )
        arguments, keywords = _call_with(batch.inputs)
        try:
            visits = _cached_trace(
                self._envoy,
                arguments,
                keywords,
                list(dict.fromkeys(paths.values())),
                last,
                self._remote,
                inputs=any(one.where == "in" for one in wanted),
            )
        except Exception as error:  # nnsight's, the server's and the model's own
            if "OutOfOrderError" in f"{type(error).__name__} {error}":
                visits = {}
            else:
                raise ModelError(
                    f"the remote run failed ({short(cause(error))}); check nnsight's API key and "
                    "host, and that the server has this model"
                ) from error
        reader = self._reader(wanted, live, [])
        with reader.within(self._as_call(batch)):
            for one in wanted:
                for index, seen in enumerate(visits.get(paths[one.site.name], [])):
                    reader.fire([one], index, seen[one.where])
        live.require_fired()
        return live

    # -- data ------------------------------------------------------------------------------------

    def batches(self, data: Any, options: DataOptions) -> Iterable[Batch]:
        """Windows of text and tokens, as the `transformer-lens` adapter reads them, or tensors.

        Args:
            data: for a model with a tokenizer a file, a folder, JSON lines, `hf:name`, texts
                however they are held, None for the embedded corpus, or tokens int64 [rows,
                position]; for any other model what the `module` adapter reads.
        """
        if self._tokenizer is None and data is not None and not isinstance(data, str | Path):
            return tensor_batches(data, options)
        prepend = self._prepend_bos
        if prepend is None and self._tokenizer is not None:
            prepend = usual_frame(self._tokenizer, begins=True)
        return language_batches(
            data, self._tokenizer, options, longest=self._longest, prepend_bos=prepend
        )

    @property
    def _longest(self) -> int | None:
        """How many positions the model reads, where its configuration says."""
        config = getattr(self._model, "config", None)
        longest = getattr(config, "max_position_embeddings", None)
        return None if longest is None else int(longest)

    def example(self) -> Batch | None:
        """Two windows of the embedded text; None for a model without a tokenizer."""
        if self._tokenizer is None:
            return None
        context = min(DataOptions().context, self._longest or math.inf)
        options = DataOptions(batch_size=2, limit=2, context=int(context))
        return next(iter(self.batches(None, options)))

    def describe(self) -> dict[str, Any]:
        """Adds name, where it runs, how many edits are registered on it, and nnsight's version."""
        return {
            **super().describe(),
            "name": self._name or getattr(self._envoy, "repo_id", None),
            "remote": self._remote,
            "edits": len(getattr(self._envoy, "_edits", ())),
            "nnsight": version("nnsight"),
            **self._file,
        }


def _call_with(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def _cached_trace(
    model: Any,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    paths: list[str],
    last: Any,
    remote: bool | str,
    *,
    inputs: bool,
) -> dict[str, list[dict[str, Any]]]:
    """What the modules at `paths` were given and returned at every visit, as {"in": .., "out": ..},
    from one trace that ends after `last`.

    nnsight reads the source of the body and runs it elsewhere, so the body uses plain local names.
    """
    # In the dry run on a CPU the cache would hold the tensors themselves, which an operation in
    # place overwrites; another type makes it copy. A server's tensors are copied off its device.
    dtype = torch.float64 if remote == "local" else None
    with model.trace(*arguments, remote=remote, **keywords) as tracer:
        cache = tracer.cache(modules=paths, dtype=dtype, include_inputs=inputs)
        if last is not None:
            reached = last.output  # noqa: F841 - waits until the model gets there
            tracer.stop()
    visits: dict[str, list[dict[str, Any]]] = {}
    for path in cache.keys():  # noqa: SIM118 - a view of nnsight's, which does not iterate
        view = cache[path]
        returned = [view.output] if len(view) == 1 else view.output
        given = [None] * len(returned)
        if inputs:
            given = [view.input] if len(view) == 1 else view.input
        visits[path] = [{"in": a, "out": b} for a, b in zip(given, returned, strict=True)]
    return visits
