"""Forward hooks on modules: the capture that the adapters share."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.utils.hooks import RemovableHandle

from polycode_plugins.devices import modes, on_host
from polycode_plugins.errors import SiteError


class StopForward(BaseException):
    """Ends a forward pass that has shown all that was asked for.

    Not an Exception, so that a model's own error handling does not swallow it.
    """


_passes = threading.local()  # .own: what marks the pass of ours that this thread is in


@contextmanager
def own_pass() -> Iterator[None]:
    """Around forward passes of ours: see `passes_of_others`."""
    before = getattr(_passes, "own", None)
    _passes.own = object()
    try:
        yield
    finally:
        _passes.own = before


def passes_of_others() -> Callable[[], bool]:
    """Tells hooks that are made now whether a call is none of theirs.

    Those made within `own_pass` look at the passes that this thread makes in there: the model may
    be run in other threads meanwhile. All others look at everybody's passes but ours, so that a
    probe that is open does not count the rows of an analysis.
    """
    mine = getattr(_passes, "own", None)
    return lambda: getattr(_passes, "own", None) is not mine


class Turns:
    """Threads that run one model one after the other; at once, their calls cannot be told apart."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Note that a pass begins in this thread.

        Raises:
            SiteError: while one of another thread is under way.
        """
        me, other = threading.current_thread(), self._thread
        self._thread = me
        if other is not None and other is not me and other.is_alive():
            raise SiteError(
                "two threads run the model at once, and which activations are whose cannot be told "
                "apart; run one pass after the other (a lock around the call), or give each thread "
                "a copy of the model and a probe of its own"
            )

    def end(self) -> None:
        """Note that the pass has ended."""
        self._thread = None


@contextmanager
def removed_after(handles: list[RemovableHandle]) -> Iterator[None]:
    """Remove every handle of the list on the way out, also those added meanwhile."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def uncompiled(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, which dynamo leaves alone where it compiles the module: it runs between graphs."""

    @_disable_dynamo
    def apart(*args: Any, **kwargs: Any) -> Any:
        return hook(*args, **kwargs)

    def run(*args: Any, **kwargs: Any) -> Any:
        # Calling what is disabled imports dynamo, which nobody needs who compiles nothing.
        called = apart if torch.compiler.is_compiling() else hook
        if not modes():
            return called(*args, **kwargs)
        with on_host():
            return called(*args, **kwargs)

    return run


@contextmanager
def eager() -> Iterator[None]:
    """While open, what torch.compile has compiled runs as it was written, so that hooks fire.

    Code that was compiled before a hook was there would go on without it.
    """
    stance = getattr(torch.compiler, "set_stance", None)  # torch 2.6
    loaded = "torch._dynamo" in sys.modules
    with stance("force_eager") if loaded and stance is not None else nullcontext():
        yield


def observe(
    module: nn.Module,
    hook: Callable[[Any], None],
    handles: list[RemovableHandle],
    *,
    inputs: Callable[[Any], None] | None = None,
) -> RemovableHandle | None:
    """Call `hook(output)` after every forward of `module`, after all other forward hooks.

    With `inputs` also `inputs(first tensor)` before it; the handle of that hook is returned, for
    `move_last`.

    A hook that somebody adds later, say to ablate the site, would otherwise run after ours and what
    we saw would not be what the model went on with: so before each call our hook moves to the end.

    What activation checkpointing computes again during the backward pass is passed over: the same
    values have been seen in the forward pass. So are passes of others, see `passes_of_others`.
    """
    of_others = passes_of_others()

    def look(_module: nn.Module, _args: Any, output: Any) -> None:
        if not in_backward() and not without_values() and not of_others():
            hook(output)

    def look_before(_module: nn.Module, args: Any, kwargs: Any) -> None:
        if inputs is None or of_others():
            return
        if not in_backward() and not without_values():
            inputs(first_tensor(args, kwargs))

    handle = module.register_forward_hook(uncompiled(look))
    before = None
    if inputs is not None:
        before = module.register_forward_pre_hook(uncompiled(look_before), with_kwargs=True)
        handles.append(before)

    def go_last(_module: nn.Module, _args: Any) -> None:
        # Somebody who clears all hooks of a module silences this site, which is an error later;
        # their forward pass goes on.
        after = cast(OrderedDict[int, Any], module._forward_hooks)
        if handle.id in after and next(reversed(after)) != handle.id:
            after.move_to_end(handle.id)

    handles += [handle, module.register_forward_pre_hook(uncompiled(go_last))]
    return before


def move_last(module: nn.Module, handle: RemovableHandle) -> None:
    """Let a forward pre-hook run after all others, which may change what the module is given."""
    before = cast(OrderedDict[int, Any], module._forward_pre_hooks)
    if handle.id in before and next(reversed(before)) != handle.id:
        before.move_to_end(handle.id)


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first tensor that a module is called with, or what else is first."""
    given = (*args, *kwargs.values())
    return next((v for v in given if isinstance(v, Tensor)), given[0] if given else None)


def in_backward() -> bool:
    """Whether the autograd engine is running a backward pass in this thread."""
    return bool(torch._C._current_graph_task_id() != -1)


def without_values() -> bool:
    """Whether the pass under way is being recorded by TorchScript: no activations of anybody's."""
    return bool(torch._C._is_tracing())


def is_fake(value: Any) -> bool:
    """Whether a tensor is of a dry run (nnsight's scan, export), where nothing has values."""
    return isinstance(value, Tensor) and any(
        c.__name__ == "FakeTensor" for c in type(value).__mro__
    )


def tensor_of(output: Any, path: str, *, what: str = "output") -> Tensor:
    """The activations in a module's output: the tensor itself, or the first entry of a tuple.

    Raises:
        SiteError: for any other output; it names the type and, for mappings, the keys.
    """
    value = output
    if isinstance(value, tuple | list) and value:
        value = value[0]
    if isinstance(value, Tensor):
        kind = _unusable(value)
        if kind is None:
            return value
    elif isinstance(output, dict):
        kind = f"a mapping with the keys {', '.join(map(repr, output))}"
    else:
        kind = f"a {type(value).__name__}"
    if isinstance(value, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(value):
        raise SiteError(
            f"the {what} of {path!r} is {kind}; run the model on the same inputs outside of it, "
            "too, and read that pass in a probe of its own"
        )
    raise SiteError(
        f"the {what} of {path!r} is {kind}, not a dense floating-point tensor; choose a module "
        "inside or beside it"
    )


def _unusable(value: Tensor) -> str | None:
    """Why a tensor holds no activations that can be read; None where it does."""
    if value.is_nested:
        return f"a nested tensor of {value.dtype}"
    if value.is_quantized:
        return f"a quantised tensor of {value.dtype}"
    if value.layout != torch.strided:
        return f"a sparse tensor ({str(value.layout).removeprefix('torch.')})"
    if not value.is_floating_point():
        return f"a tensor of {value.dtype}"
    if torch._C._functorch.is_functorch_wrapped_tensor(value):
        return "a tensor under a transform of torch.func (vmap, grad), which hides what is in it"
    return None
