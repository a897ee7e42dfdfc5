"""The calls of modules that are under way: which one began it all, and what each was called with.

Masks and documents are read off these arguments: a mask belongs to the stream that the module it
was given to works on. What begins a pass is the outermost of the modules on the way to the sites,
which need not be the root: `generate` of an encoder-decoder calls the encoder alone, and that of a
PEFT model the model inside.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polycode_plugins.adapters.hooks import (
    in_backward,
    passes_of_others,
    uncompiled,
    without_values,
)


class Call:
    """One call of a module that is under way.

    Attributes:
        module: the module.
        args: its positional arguments.
        kwargs: its keyword arguments.
        outer: the call that it is made from, None for the outermost.
        output: what it returned, None while it runs.
        notes: what readers of the call keep to read it once.
    """

    def __init__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outer: Call | None
    ) -> None:
        self.module = module
        self.args = args
        self.kwargs = kwargs
        self.outer = outer
        self.output: Any = None
        self.notes: dict[Any, Any] = {}
        self._arguments: dict[str, Any] | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by name; those in a mapping (a wrapper's batch) by their keys there."""
        if self._arguments is None:
            self._arguments = named_arguments(self.module, self.args, self.kwargs)
        return self._arguments

    def outwards(self) -> Iterator[Call]:
        """This call, the one that it was made from, and so on to the outermost."""
        call: Call | None = self
        while call is not None:
            yield call
            call = call.outer


def named_arguments(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """What a module is called with, by the names of its `forward`."""
    named: dict[str, Any] = {}
    names = argument_names(module)
    for index, value in enumerate(args):
        name = names[index] if index < len(names) else str(index)
        if isinstance(value, Mapping):
            named.update((str(k), v) for k, v in value.items())
        else:
            named[name] = value
    alone = holds_all(args, kwargs)
    for name, value in kwargs.items():
        if isinstance(value, Mapping) and alone:
            named.update((str(k), v) for k, v in value.items())
        else:
            named[name] = value
    return named


def holds_all(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a mapping among the arguments is the whole batch: no tensor stands beside it."""
    return not any(isinstance(value, Tensor) for value in (*args, *kwargs.values()))


def argument_names(module: nn.Module) -> tuple[str, ...]:
    """The names of what the `forward` of a module takes by position."""
    # A forward that was replaced on this one module has a signature of its own.
    own = _names(module.forward) if "forward" in module.__dict__ else ()
    own = own[1:] if own[:1] == ("self",) else own  # of an unbound one that was wrapped
    return own or _parameters(type(module).forward)


@lru_cache(maxsize=4096)
def _parameters(forward: Callable[..., Any]) -> tuple[str, ...]:
    return _names(forward)[1:]


def _names(function: Callable[..., Any]) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a C function, a forward of TorchScript
        return ()
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(p.name for p in parameters if p.kind in places)


class Calls:
    """Watches the modules on the way to some sites.

    Args:
        modules: them and the modules around them, outermost first.
        handles: gets the handles of the hooks.
        aside: whether what runs is no part of a pass.

    Attributes:
        innermost: the innermost call under way, None when there is none.
        begin: called with each outermost call before it runs.
        end: called with it when it has returned.
        late: ids of modules whose hooks still look at a call when it has returned.
    """

    def __init__(
        self,
        modules: list[nn.Module],
        handles: list[RemovableHandle],
        *,
        aside: Callable[[], bool] = lambda: False,
    ) -> None:
        self._aside = aside
        self._of_others = passes_of_others()
        self.innermost: Call | None = None
        self.begin: Callable[[Call], None] | None = None
        self.end: Callable[[Call], None] | None = None
        self.late: set[int] = set()
        self._counts: dict[str, int] = {}
        self._inside = {id(m): {id(part) for part in m.modules()} for m in modules}
        for module in modules:
            enter, leave = uncompiled(self._enter), uncompiled(self._leave)
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave, always_call=True))

    @property
    def outermost(self) -> Call | None:
        """The call that the others are made from."""
        found = None
        for call in self.innermost.outwards() if self.innermost is not None else ():
            found = call
        return found

    def next_call(self, path: str) -> int:
        """The index of the call of `path` that is happening in this pass, counting it."""
        index = self._counts.get(path, 0)
        self._counts[path] = index + 1
        return index

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if in_backward() or without_values() or self._aside() or self._of_others():
            return
        outer = self.innermost
        # A pass that ended by an exception may have left its calls behind.
        while outer is not None and (
            id(module) not in self._inside[id(outer.module)] or outer.module is module
        ):
            outer = outer.outer
        self.innermost = call = Call(module, args, kwargs, outer)
        if outer is None:
            self._counts.clear()
            if self.begin is not None:
                self.begin(call)

    def _leave(self, module: nn.Module, _args: Any, output: Any) -> None:
        if self._of_others():
            return
        # After an exception the hooks that would end a call late do not run.
        if id(module) not in self.late or output is None:
            self.leave(module, output)

    def leave(self, module: nn.Module, output: Any) -> None:
        """End the call of a module."""
        call = self.innermost
        while call is not None and call.module is not module:
            call = call.outer
        if call is None:
            return
        self.innermost = call.outer
        if call.outer is None and self.end is not None:
            call.output = output
            self.end(call)
