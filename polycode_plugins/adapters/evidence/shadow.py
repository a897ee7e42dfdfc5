"""A copy of a model to try inputs on: same weights, no hooks, and what it does leaves no trace.

Somebody else's model must not see passes that he did not make: his hooks would fire, his counters
count, his caches grow. The copy shares the weights, has buffers of its own and no hook at all.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from polycode_plugins.adapters.evidence.shapes import Shapes
from polycode_plugins.adapters.hooks import first_tensor, tensor_of
from polycode_plugins.errors import ModelError, SiteError

#: A module, the index of its call, and "out" or "in".
Place = tuple[nn.Module, int, str]
LARGE = 2_000_000  # values of a tensor that are still compared

# What a module keeps hooks in; a copy of it starts with empty ones.
_HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs"),
    "_forward_hooks_always_called",
)
_SPREAD = ("DistributedDataParallel", "DataParallel")  # which hold the model proper as `module`
_SHARDED = ("FullyShardedDataParallel", "FSDPModule")


class NotYet(ModelError):
    """The model cannot be copied before it has run: its lazy modules have no weights."""


class Shadow:
    """The copy, in evaluation mode.

    Args:
        model: the model, or a part of it.
        device: "meta" gives a copy without values, which costs neither time nor memory; None
            shares the weights.

    Raises:
        ModelError: for a model that cannot be copied (offloaded or sharded weights, objects that
            refuse); `NotYet` for lazy modules that have not run.
    """

    def __init__(self, model: nn.Module, device: str | None = None) -> None:
        model = proper(model)
        self.by_shape = device == "meta"
        self._memo: dict[int, Any] = {}
        for module in model.modules():
            self._share(module, device)
        try:
            self.model: nn.Module = copy.deepcopy(model, self._memo)
        except Exception as error:  # whatever objects hang on the model
            raise ModelError(f"the model cannot be copied ({error})") from error
        self.model.eval()
        self._buffers = [
            (m, name, buffer, buffer.clone())
            for m in self.model.modules()
            for name, buffer in m._buffers.items()
            if buffer is not None
        ]

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What the copy returns, or raises."""
        with Shapes() if self.by_shape else nullcontext():
            return self.model(*args, **kwargs)

    def rewind(self) -> None:
        """Give all buffers the values that they had, where a run has changed them."""
        for module, name, buffer, value in self._buffers:
            if not buffer.is_meta:
                buffer.data.copy_(value)
            module._buffers[name] = buffer

    def _share(self, module: nn.Module, device: str | None) -> None:
        names = {c.__name__ for c in type(module).__mro__}
        if hasattr(module, "_hf_hook") or names & set(_SHARDED):
            raise ModelError(f"the weights of {type(module).__name__} are not all here")
        for kind in _HOOKS:
            held = module.__dict__.get(kind)
            if held is not None:
                self._memo[id(held)] = OrderedDict()
        # Plain tensors among the attributes may have a graph, which deepcopy refuses.
        for value in module.__dict__.values():
            if isinstance(value, Tensor):
                self._memo[id(value)] = _moved(value.detach(), device)
        for parameter in module._parameters.values():
            if parameter is None:
                continue
            if nn.parameter.is_lazy(parameter):
                raise NotYet(f"{type(module).__name__} has not run yet")
            if id(parameter) not in self._memo:
                self._memo[id(parameter)] = (
                    parameter
                    if device is None
                    else nn.Parameter(_moved(parameter.detach(), device), requires_grad=False)
                )
        for buffer in module._buffers.values():
            if buffer is not None and id(buffer) not in self._memo:
                own = buffer.detach().clone() if device is None else _moved(buffer.detach(), device)
                self._memo[id(buffer)] = own

    def copy_of(self, module: nn.Module) -> nn.Module | None:
        """What stands for a module of the model; None for one that is no part of it."""
        found = self._memo.get(id(proper(module)))
        return found if isinstance(found, nn.Module) else None


@dataclass
class Seen:
    """What one run showed: the tensors asked for, and the outputs of all modules in order.

    The values of outputs are kept where they are to be compared.
    """

    asked: dict[Place, Tensor | str] = field(default_factory=dict)
    outputs: list[Tensor] = field(default_factory=list)
    shapes: list[tuple[nn.Module, tuple[int, ...]]] = field(default_factory=list)


class Watch:
    """Hooks on all modules of a shadow: what a run of it shows.

    They hang there for all runs: to hang them takes as long as a run without values. The shadow
    holds them, and they do not hold it, so that it goes when nobody needs it.

    Args:
        shadow: the copy.
        places: the tensors of the model to note.
        compared: whether the values of all outputs are kept.
    """

    def __init__(self, shadow: Shadow, places: Sequence[Place], *, compared: bool) -> None:
        self._compared = compared
        # `Shapes` is for what the model itself calls.
        self._aside = torch._C.DisableTorchFunction if shadow.by_shape else nullcontext
        self._seen = Seen()
        self._counts: dict[int, int] = {}
        self._asked: dict[int, nn.Module] = {}
        for module, _, _ in places:
            found = shadow.copy_of(module)
            if found is not None:
                self._asked[id(found)] = module
        for module in shadow.model.modules():
            module.register_forward_hook(self._look, with_kwargs=True)

    def run(self, shadow: Shadow, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Seen:
        """What the shadow shows on these arguments; raises what it raises."""
        try:
            shadow.run(args, kwargs)
            return self._seen
        finally:
            self._seen, self._counts = Seen(), {}

    def _look(
        self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> None:
        with self._aside():
            self._note(module, given, named, output)

    def _note(
        self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> None:
        seen, original = self._seen, self._asked.get(id(module))
        if original is not None:
            call = self._counts[id(module)] = self._counts.get(id(module), -1) + 1
            for where, value in (("out", output), ("in", first_tensor(given, named))):
                try:
                    tensor: Tensor | str = _kept(tensor_of(value, "it"))
                except SiteError as error:
                    tensor = str(error)
                seen.asked[original, call, where] = tensor
        value = output[0] if isinstance(output, tuple | list) and output else output
        if not isinstance(value, Tensor):
            return
        seen.shapes.append((module, tuple(value.shape)))
        if self._compared and value.is_floating_point() and value.numel() <= LARGE:
            seen.outputs.append(_kept(value))


def _kept(values: Tensor) -> Tensor:
    """As they are now, whatever is written to them later."""
    values = values.detach()
    return values if values.is_meta else values.clone()


def proper(model: nn.Module) -> nn.Module:
    """The model inside of what compiles it or spreads it over devices."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module) and type(model).__name__ in _SPREAD:
            inner = getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _moved(values: Tensor, device: str | None) -> Tensor:
    return values if device is None else values.to(device)


@dataclass(frozen=True, eq=False)
class Leaf:
    """A tensor among the arguments of a call.

    Attributes:
        name: of the argument, with the keys it lies under ("encoder_outputs.last_hidden_state").
        values: the tensor.
    """

    name: str
    values: Tensor


def leaves(arguments: Mapping[str, Any]) -> list[Leaf]:
    """The tensors in arguments, containers looked into; caches and other objects are not."""
    found: list[Leaf] = []

    def note(name: str, values: Tensor) -> Tensor:
        found.append(Leaf(name, values))
        return values

    for name, value in arguments.items():
        changed(value, note, name)
    return found


def changed(value: Any, change: Callable[[str, Tensor], Tensor], name: str = "") -> Any:
    """The same value with every tensor in its containers replaced by `change(name, tensor)`."""
    if isinstance(value, Tensor):
        return change(name, value)
    if isinstance(value, Mapping):
        items = {k: changed(v, change, _at(name, k)) for k, v in value.items()}
        if type(value) is dict:
            return items
        kind: Any = type(value)
        try:
            return kind(items)
        except TypeError:  # a mapping made of keywords
            return kind(**items)
    if isinstance(value, tuple | list) and value and not isinstance(value, torch.Size):
        parts = [changed(v, change, _at(name, i)) for i, v in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if is_dataclass(value) and not isinstance(value, type):
        old = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        new = {k: changed(v, change, _at(name, k)) for k, v in old.items()}
        return replace(value, **new) if any(new[k] is not old[k] for k in new) else value
    return value


def _at(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)
