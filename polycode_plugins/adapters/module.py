"""The `module` adapter: any nn.Module, read through forward hooks.

A site is a module's path, with the index of the call where a module is called more than once in a
forward pass: `layer1.0.relu:0` and `layer1.0.relu:1` are the two uses of one ReLU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polycode_plugins.activations import FEATURE_AXES, Site, Tokens
from polycode_plugins.adapters.base import Adapter, Batch, Capture, Sink
from polycode_plugins.adapters.hooks import (
    CallCounter,
    StopForward,
    observe,
    removed_after,
    tensor_of,
)
from polycode_plugins.adapters.inputs import device_of, tensor_batches, to_device, tokens_of
from polycode_plugins.adapters.layout import (
    axes_of,
    batch_first,
    evidence,
    static_evidence,
)
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import DataError, ModelError, SiteError


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
        self._votes = static_evidence(model)
        self._modules = {
            path: module for path, module in model.named_modules(remove_duplicate=False) if path
        }
        self._silent: dict[str, str] = {}  # modules that a trace found unusable, and why

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
            if type(module).forward is not nn.Module.forward
        ]

    def _trace(self, example: Batch) -> list[Site]:
        fired: list[tuple[str, int, Tensor | SiteError]] = []
        handles: list[RemovableHandle] = []

        def note(path: str, counter: CallCounter, output: Any) -> None:
            call = counter.next_call(path)
            try:
                # Only the shape is kept: a strided view of nothing.
                fired.append((path, call, tensor_of(output, path).detach().to("meta")))
            except SiteError as error:
                fired.append((path, call, error))

        with removed_after(handles), undisturbed(self._model, train_mode=True):
            counter = CallCounter(self._model, handles)
            for paths in self._paths_by_module().values():
                observe(self._modules[paths[0]], partial(note, paths[0], counter), handles)
            self._call(example)
        tensors = [(p, c, t) for p, c, t in fired if isinstance(t, Tensor)]
        self._votes = evidence((self._modules[p], t.dim()) for p, _, t in tensors)
        calls = {p: c + 1 for p, c, _ in fired}
        aliases = self._paths_by_module()
        self._silent = {p: str(t) for p, _, t in fired if isinstance(t, SiteError)}
        sites: list[Site] = []
        for depth, (path, call, values) in enumerate(tensors):
            axes, width = self._shape(path, values)
            for alias in aliases[id(self._modules[path])]:
                name = alias if calls[path] == 1 else f"{alias}:{call}"
                sites.append(Site(name, depth, axes, width, source=f"{path}:{call}"))
        return sites

    def _paths_by_module(self) -> dict[int, list[str]]:
        paths: dict[int, list[str]] = {}
        for path, module in self._modules.items():
            paths.setdefault(id(module), []).append(path)
        return paths

    def _shape(self, path: str, values: Tensor) -> tuple[tuple[str, ...], int | None]:
        """Axes and width, unknown where the layout must be named (asked for only if it is used)."""
        try:
            axes = axes_of(path, self._modules[path], values, self._votes, self._axes)
        except (SiteError, DataError):
            return (), None
        values, axes = batch_first(values, axes)
        width = 1
        for n, axis in zip(values.shape, axes, strict=True):
            width *= n if axis in FEATURE_AXES else 1
        return axes, width

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

    def resolve(self, patterns: Sequence[str] | str | None, example: Batch | None) -> list[Site]:
        """As every adapter; without an example `path:k` is taken at its word."""
        if example is not None or patterns is None:
            return super().resolve(patterns, example)
        names = [patterns] if isinstance(patterns, str) else list(patterns)
        plain = [n for n in names if n not in self._modules and self._split(n)[0] in self._modules]
        rest = [n for n in names if n not in plain]
        sites = super().resolve(rest, None) if rest else []
        return [*sites, *(Site(n, len(sites) + i, source=n) for i, n in enumerate(plain))]

    @staticmethod
    def _split(name: str) -> tuple[str, int | None]:
        path, colon, call = name.rpartition(":")
        return (path, int(call)) if colon and call.isdigit() else (name, None)

    def _module_of(self, site: Site) -> tuple[nn.Module, int | None]:
        if site.name in self._modules:
            return self._modules[site.name], None
        path, call = self._split(site.name)
        return self._modules[path], call

    # -- capture ---------------------------------------------------------------------------------

    @contextmanager
    def capture(self, sites: Sequence[Site], sink: Sink) -> Iterator[Capture]:
        """Hooks on the modules of `sites` while open."""
        live = Capture(sites, sink)
        handles: list[RemovableHandle] = []
        wanted: dict[int, list[tuple[Site, int | None]]] = {}
        modules: dict[int, nn.Module] = {}
        for site in sites:
            module, call = self._module_of(site)
            modules[id(module)] = module
            wanted.setdefault(id(module), []).append((site, call))
        padding = self.padding()
        with removed_after(handles):
            handles.append(self._model.register_forward_pre_hook(padding.note, with_kwargs=True))
            counter = CallCounter(self._model, handles)
            for key, module in modules.items():
                receive = partial(self._receive, live, wanted[key], counter, padding)
                observe(module, receive, handles)
            yield live

    def _receive(
        self,
        live: Capture,
        wanted: list[tuple[Site, int | None]],
        counter: CallCounter,
        padding: Padding,
        output: Any,
    ) -> None:
        call = counter.next_call(wanted[0][0].name)  # one name is enough: it is one module
        for site, index in wanted:
            if index is None and call > 0:
                raise SiteError(
                    f"{site.name!r} is called more than once in a forward pass; say which call: "
                    f"'{site.name}:0', '{site.name}:1', ..."
                )
            if index is None or index == call:
                module, _ = self._module_of(site)
                values = tensor_of(output, site.name)
                axes = axes_of(site.name, module, values, self._votes, self._axes)
                values, axes = batch_first(values, axes)
                live.receive(site, values, axes, mask=padding.mask, tokens=padding.tokens)

    def padding(self) -> Padding:
        """What finds the positions that count, in somebody else's workflow."""
        return Padding()

    def forward(self, batch: Batch, stop_after: Site | None = None) -> None:
        """Run the model on a batch and leave the pass once `stop_after` has fired."""
        if stop_after is None:
            self._call(batch)
            return
        handles: list[RemovableHandle] = []
        module, call = self._module_of(stop_after)
        last = call or 0

        def stop(counter: CallCounter, _output: Any) -> None:
            if counter.next_call(stop_after.name) == last:
                raise StopForward

        with removed_after(handles):
            counter = CallCounter(self._model, handles)
            observe(module, partial(stop, counter), handles)
            try:
                self._call(batch)
            except StopForward:
                return

    def _call(self, batch: Batch) -> None:
        inputs = to_device(batch.inputs, device_of(self._model))
        if isinstance(inputs, Mapping):
            self._model(**inputs)
        elif isinstance(inputs, tuple):
            self._model(*inputs)
        else:
            self._model(inputs)

    # -- data ------------------------------------------------------------------------------------

    def batches(self, data: Any, options: DataOptions) -> Iterable[Batch]:
        """Batches of tensors.

        Args:
            data: a tensor or array [rows, ...]; or an iterable of batches (a DataLoader) that are
                tensors, (inputs, labels) pairs, dicts of keyword arguments, or `Batch` objects. An
                `attention_mask` [batch, position] in a dict is also the mask of the statistics.
        """
        return tensor_batches(data, options)

    def describe(self) -> dict[str, Any]:
        """Adds the modules whose layout was named."""
        asked = self._axes
        axes = {k: list(v) for k, v in asked.items()} if isinstance(asked, Mapping) else asked
        return {**super().describe(), "axes": list(axes) if isinstance(axes, tuple) else axes}


class Padding:
    """The positions that count in the forward pass under way, in somebody else's workflow.

    Attributes:
        mask: bool [batch, position], from the `attention_mask` the model is called with; None when
            there is none.
        tokens: its `input_ids`, where it is called with some.
    """

    def __init__(self) -> None:
        self.mask: Tensor | None = None
        self.tokens: Tokens | None = None

    def note(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the whole model."""
        self.tokens = tokens_of(kwargs.get("input_ids"))
        mask = kwargs.get("attention_mask")
        if not isinstance(mask, Tensor) or mask.dim() != 2:
            self.mask = None
            return
        given = [kwargs.get("input_ids"), kwargs.get("inputs_embeds"), *args[:1]]
        inputs = next((t for t in given if isinstance(t, Tensor) and t.dim() >= 2), None)
        # While text is generated the mask also covers the positions in the cache, which come first.
        self.mask = mask.bool() if inputs is None else mask.bool()[:, -inputs.shape[1] :]
