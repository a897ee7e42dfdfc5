"""The `module` adapter: any nn.Module, read through forward hooks.

A site is a module's path, with the index of the call where a module is called more than once in a
forward pass: `layer1.0.relu:0` and `layer1.0.relu:1` are the two uses of one ReLU. The output is
meant; `path:in` (and `path:in:1`) is what the module is given, which for the last map of a gated
MLP is its neurons.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polycode_plugins.activations import Site
from polycode_plugins.adapters.base import Adapter, Batch, Capture, Sink
from polycode_plugins.adapters.evidence.axes import (
    Reading,
    lay,
    main_leaf,
    width_of,
)
from polycode_plugins.adapters.evidence.calls import Call, Calls
from polycode_plugins.adapters.evidence.layout import asked_axes
from polycode_plugins.adapters.evidence.proof import Axes
from polycode_plugins.adapters.evidence.reader import Reader, Wanted, around, not_read
from polycode_plugins.adapters.hooks import (
    StopForward,
    eager,
    observe,
    own_pass,
    removed_after,
    tensor_of,
)
from polycode_plugins.adapters.inputs import (
    device_of,
    in_precision,
    no_run,
    tensor_batches,
    to_device,
)
from polycode_plugins.adapters.patterns import Sites, check_patterns, choose
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.data_options import DataOptions
from polycode_plugins.devices import as_found
from polycode_plugins.errors import DataError, ModelError, PolycodeError, SiteError

IN = ":in"  # ends the path in the name of a site that is the input of a module


class ModuleAdapter(Adapter):
    """Any nn.Module.

    PyTorch leaves the fused fast path of an `nn.TransformerEncoderLayer` in evaluation mode while
    any of its modules has a hook: its outputs may then differ in the last bits.

    Args:
        model: the live module.
        axes: names of the axes of outputs whose layout the model does not show: one tuple for all
            sites or {glob of paths: tuple}, for example `("batch", "position", "feature")`.

    Raises:
        ModelError: for anything that is not an nn.Module.
    """

    name = "module"
    generic = True
    finds_masks = True

    def __init__(
        self,
        model: nn.Module,
        *,
        axes: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ModelError(
                f"the module adapter takes a live torch.nn.Module, not {model!r}; load the model "
                "first, or name another adapter"
            )
        self._model = model
        self._axes = axes
        self._proven = Axes()
        self._modules = {
            path: module for path, module in model.named_modules(remove_duplicate=False) if path
        }
        self._silent: dict[str, str] = {}  # modules that a trace found unusable, and why
        self._given: list[Site] = []  # the inputs that the last trace saw

    @classmethod
    def accepts(cls, model: object) -> bool:
        """Every nn.Module, when no other adapter claims it."""
        return isinstance(model, nn.Module)

    @property
    def model(self) -> nn.Module:
        """The live module."""
        return self._model

    # -- sites -----------------------------------------------------------------------------------

    def sites(self, example: Batch | None = None) -> list[Site]:
        """Module paths; with an example also order of firing, repeated calls, axes and widths.

        The example runs once, in the modes the modules are in: sites that only fire in training
        are found in training.
        """
        if example is not None:
            return self._trace(example)
        first = {
            id(self._modules[paths[0]]): paths[0] for paths in self._paths_by_module().values()
        }
        return [
            Site(path, depth=i, source=first[id(module)])
            for i, (path, module) in enumerate(self._modules.items())
            # Lists of modules are no modules that are called.
            if _is_called(module)
        ]

    def _trace(self, example: Batch) -> list[Site]:
        if isinstance(self._model, torch.jit.ScriptModule):
            raise ModelError(_SCRIPT.format(name=type(self._model).__name__, what="is"))
        outputs, self._given = self._traced(example)
        return outputs

    def _traced(self, example: Batch) -> tuple[list[Site], list[Site]]:
        """The outputs and the inputs that fire on an example, in their order."""
        fired: list[tuple[str, int, str, Tensor | SiteError]] = []
        handles: list[RemovableHandle] = []
        aliases = self._paths_by_module()

        def note(path: str, where: str, value: Any) -> None:
            call = calls.next_call(f"{path} {where}")
            try:
                # Only the shape is kept: a strided view of nothing.
                values: Tensor | SiteError = tensor_of(value, path).detach().to("meta")
            except SiteError as error:
                values = error
            fired.append((path, call, where, values))

        with removed_after(handles), undisturbed(self._model, train_mode=True), eager(), own_pass():
            calls = Calls([self._model], handles)
            for path, *_ in aliases.values():
                if isinstance(self._modules[path], torch.jit.ScriptModule):
                    continue  # which takes no hooks
                observe(
                    self._modules[path],
                    partial(note, path, "out"),
                    handles,
                    inputs=partial(note, path, "in"),
                )
            with as_found():
                self._call(example)
        self._silent = {
            p: str(t) for p, _, w, t in fired if w == "out" and isinstance(t, SiteError)
        }
        places = [(self._modules[p], c, w) for p, c, w, _ in fired]
        given = self._as_call(example)
        proof = self._proven.proof(given, places, of_rows=True)
        rows, length = proof.input.sizes(main_leaf(given.arguments))
        often = {p for p, c, _, _ in fired if c > 0}
        found: dict[str, list[Site]] = {"out": [], "in": []}
        depth = 0
        for path, call, where, values in fired:
            if not isinstance(values, Tensor):
                continue
            module = self._modules[path]
            reading = proof.readings.get((module, call, where))
            for alias in aliases[id(module)]:
                base = f"{alias}{IN}" if where == "in" else alias
                name = f"{base}:{call}" if path in often else base
                try:
                    axes, width = self._shape(name, values, reading, rows, length)
                except SiteError as error:  # nobody's activations: it is no site
                    self._silent[name] = str(error)
                    continue
                source = f"{path}{IN}:{call}" if where == "in" else f"{path}:{call}"
                found[where].append(Site(name, depth, axes, width, source=source))
            depth += where == "out"
        return found["out"], found["in"]

    def _paths_by_module(self) -> dict[int, list[str]]:
        paths: dict[int, list[str]] = {}
        for path, module in self._modules.items():
            paths.setdefault(id(module), []).append(path)
        return paths

    def _shape(
        self,
        name: str,
        values: Tensor,
        reading: Reading | None,
        rows: int | None,
        length: int | None,
    ) -> tuple[tuple[str, ...], int | None]:
        """Axes and width, unknown where they must be named (asked for only if it is used).

        Raises:
            SiteError: for what holds no activations of anybody, attention weights for example.
        """
        try:
            named = asked_axes(name, values, self._axes)
        except (SiteError, DataError):
            return (), None
        if named is not None:
            reading, rows = Reading(named), None
        if reading is not None and reading.why and not reading.ask:
            raise SiteError(not_read(name, values, reading.why, ask=False))
        laid = lay(reading, values, rows, length) if reading is not None and reading.axes else None
        if laid is None:
            return (), None
        return laid.axes, width_of(laid.values.shape, laid.axes)

    def default_sites(self, sites: Sequence[Site]) -> list[str]:
        """The modules without submodules: where a network computes rather than groups."""
        leaves = [s.name for s in sites if not any(True for _ in self._module_of(s)[0].children())]
        return leaves or [s.name for s in sites]

    def _unknown(self, pattern: str, available: Sequence[Site]) -> str:
        if pattern in self._silent:
            return self._silent[pattern]
        if pattern in self._modules:
            repeated = [s.name for s in available if s.name.startswith(f"{pattern}:")]
            if repeated:
                return (
                    f"{pattern!r} is called {len(repeated)} times in a forward pass; say which: "
                    f"{' or '.join(map(repr, repeated))}, or '{pattern}:*' for all"
                )
            return (
                f"site {pattern!r} exists and did not fire; the model does not pass through it on "
                "this input, so leave it out"
            )
        return super()._unknown(pattern, available)

    def resolve(self, patterns: Sites, example: Batch | None) -> list[Site]:
        """As every adapter; inputs are found by patterns with `:in` alone, and by functions.

        Without an example `path:k` is taken at its word.
        """
        check_patterns(patterns)
        if callable(patterns):
            inner, outer = self._accepted(patterns, example)
            patterns = [*inner, *outer]
        names = [patterns] if isinstance(patterns, str) else list(patterns or ())
        inner = [n for n in names if IN in n]
        outer = [n for n in names if IN not in n]
        sites = (
            self._outputs(outer if patterns is not None else None, example)
            if (outer or not inner)
            else []
        )
        if not inner:
            return sites
        spelt = [n for n in inner if self._split(n)[1] is not None and example is None]
        inputs = [Site(n, len(self._modules), source=n) for n in spelt]
        rest = [n for n in inner if n not in spelt]
        if rest:
            available = self._inputs(example)
            chosen = {s.name for s in choose(rest, available, [], self._unknown)}
            inputs += [s for s in available if s.name in chosen]
        if outer:  # `choose` has numbered the outputs anew: here their own places are needed
            places = {s.name: s.depth for s in self.sites(example)}
            sites = [replace(s, depth=places.get(s.name, len(places))) for s in sites]
        order = sorted([*inputs, *sites], key=lambda s: s.depth)
        return [replace(site, depth=i) for i, site in enumerate(order)]

    def _accepted(
        self, wanted: Callable[[str], bool], example: Batch | None
    ) -> tuple[list[str], list[str]]:
        """The names of inputs and of outputs that a function accepts.

        Raises:
            SiteError: where there are none.
        """
        outputs = self.sites(example)
        chosen = choose(wanted, [*outputs, *self._inputs(example)], [], self._unknown)
        names = [site.name for site in chosen]
        return [n for n in names if IN in n], [n for n in names if IN not in n]

    def _outputs(self, patterns: Sequence[str] | None, example: Batch | None) -> list[Site]:
        if example is not None or patterns is None:
            return super().resolve(patterns, example)
        plain = [
            n for n in patterns if n not in self._modules and self._split(n)[0] in self._modules
        ]
        rest = [n for n in patterns if n not in plain]
        sites = super().resolve(rest, None) if rest else []
        return [*sites, *(Site(n, len(sites) + i, source=n) for i, n in enumerate(plain))]

    def _inputs(self, example: Batch | None) -> list[Site]:
        """The inputs of all modules, as sites."""
        if example is not None:
            self._trace(example)
            return self._given
        return [
            replace(s, name=f"{s.name}{IN}", source=f"{s.source}{IN}") for s in self.sites(None)
        ]

    @staticmethod
    def _split(name: str) -> tuple[str, int | None]:
        path, colon, call = name.rpartition(":")
        return (path, int(call)) if colon and call.isdigit() else (name, None)

    def _module_of(self, site: Site) -> tuple[nn.Module, int | None]:
        if site.name in self._modules:
            return self._modules[site.name], None
        path, call = self._split(site.name)
        return self._modules[path.removesuffix(IN)], call

    def _wanted(self, site: Site) -> Wanted:
        module, call = self._module_of(site)
        path, _ = self._split(site.name)
        where = "in" if path.endswith(IN) and site.name not in self._modules else "out"
        return Wanted(site, module, call, where)

    # -- capture ---------------------------------------------------------------------------------

    @contextmanager
    def capture(self, sites: Sequence[Site], sink: Sink) -> Iterator[Capture]:
        """Hooks on the modules of `sites` while open; what is compiled runs as it was written.

        Raises:
            ModelError: for a model that runs where no hook sees it.
        """
        wanted = [self._wanted(site) for site in sites]
        for one in wanted:
            check_seen(self._model, one)
        live = Capture(sites, sink)
        handles: list[RemovableHandle] = []
        with removed_after(handles), eager():
            self._reader(wanted, live, handles)
            yield live

    def _reader(
        self, wanted: Sequence[Wanted], live: Capture, handles: list[RemovableHandle]
    ) -> Reader:
        return Reader(
            self._model,
            wanted,
            live,
            self._proven,
            named=self._axes,
            mask=self.mask,
            handles=handles,
            **self._reading(),
        )

    def _reading(self) -> dict[str, Any]:
        """What else a `Reader` is told: tokens that do not count, what tokens stand for."""
        return {}

    def forward(self, batch: Batch, stop_after: Site | None = None) -> None:
        """Run the model on a batch and leave the pass once `stop_after` has fired."""
        if stop_after is None:
            self._call(batch)
            return
        handles: list[RemovableHandle] = []
        module, call = self._module_of(stop_after)
        last = call or 0

        calls = 0

        def stop(_output: Any) -> None:
            nonlocal calls
            calls += 1
            if calls > last:
                raise StopForward

        with removed_after(handles):
            observe(module, stop, handles)
            try:
                self._call(batch)
            except StopForward:
                return

    def _call(self, batch: Batch) -> None:
        args, kwargs = self._arguments(batch)
        try:
            self._model(*args, **kwargs)
        except (PolycodeError, torch.OutOfMemoryError):
            raise
        except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
            if _from_a_hook(error):
                raise
            raise no_run(self._model, (args, kwargs), error) from error

    def _arguments(self, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
        inputs = in_precision(batch.inputs, self._model)
        inputs = to_device(inputs, device_of(self._model))
        if isinstance(inputs, Mapping):
            return (), dict(inputs)
        return (inputs if isinstance(inputs, tuple) else (inputs,)), {}

    def _as_call(self, batch: Batch) -> Call:
        """The call of the model that a batch is for."""
        args, kwargs = self._arguments(batch)
        return Call(self._model, args, kwargs, None)

    # -- data ------------------------------------------------------------------------------------

    def batches(self, data: Any, options: DataOptions) -> Iterable[Batch]:
        """Batches of tensors.

        Args:
            data: a tensor or array [rows, ...], or a mapping of such; a data set (of torch or
                Hugging Face) or list of rows: tensors, (tensor, label) pairs, mappings; or an
                iterable of batches (a DataLoader) that are tensors, (inputs, labels) pairs, dicts
                of keyword arguments, or `Batch` objects. An `attention_mask` [batch, position] in a
                dict is also the mask of the statistics. Floats are given to the model in the type
                of its weights. Rows in a plain list have one axis, or a label that is a number:
                what has more axes is a batch.
        """
        return tensor_batches(data, options)

    def describe(self) -> dict[str, Any]:
        """Adds the modules whose layout was named."""
        asked = self._axes
        axes = {k: list(v) for k, v in asked.items()} if isinstance(asked, Mapping) else asked
        return {**super().describe(), "axes": list(axes) if isinstance(axes, tuple) else axes}


def _is_called(module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule):
        return True  # which hides the forward of its class
    return type(module).forward is not nn.Module.forward


_SCRIPT = (
    "{name} {what} a TorchScript module, which runs without hooks; give the model that it was made "
    "of, or a module around it"
)


def check_seen(model: nn.Module, wanted: Wanted) -> None:
    """Refuse a site whose module runs where no hook of ours fires.

    Raises:
        ModelError: saying why, and what to do.
    """
    name = wanted.site.name
    if isinstance(model, torch.jit.ScriptModule):  # of which torch.jit.script shows no parts
        raise ModelError(_SCRIPT.format(name=repr(name), what="is in"))
    for module in around(model, [wanted.module]):
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(_SCRIPT.format(name=repr(name), what="is in"))
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise ModelError(
                f"{name!r} is inside of nn.DataParallel, which runs copies of it on "
                f"{len(module.device_ids)} devices; attach to model.module and call that"
            )


def _from_a_hook(error: Exception) -> bool:
    """Whether it was raised where the model calls us back: by a metric, say."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(f.f_globals.get("__name__", "").startswith("polycode_plugins.") for f in frames[1:])
