"""Forward hooks on modules: the capture that the adapters share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polycode_plugins.errors import SiteError


class StopForward(BaseException):
    """Ends a forward pass that has shown all that was asked for.

    Not an Exception, so that a model's own error handling does not swallow it.
    """


@contextmanager
def removed_after(handles: list[RemovableHandle]) -> Iterator[None]:
    """Remove every handle of the list on the way out, also those added meanwhile."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def observe(module: nn.Module, hook: Callable[[Any], None], handles: list[RemovableHandle]) -> None:
    """Call `hook(output)` after every forward of `module`, after all other forward hooks.

    A hook that somebody adds later, say to ablate the site, would otherwise run after ours and what
    we saw would not be what the model went on with: so before each call our hook moves to the end.

    What activation checkpointing computes again during the backward pass is passed over: the same
    values have been seen in the forward pass.
    """

    def look(_module: nn.Module, _args: Any, output: Any) -> None:
        if not in_backward():
            hook(output)

    handle = module.register_forward_hook(look)

    def go_last(_module: nn.Module, _args: Any) -> None:
        hooks = cast(OrderedDict[int, Any], module._forward_hooks)
        # Somebody who clears all hooks of a module silences this site, which is an error later;
        # their forward pass goes on.
        if handle.id in hooks and next(reversed(hooks)) != handle.id:
            hooks.move_to_end(handle.id)

    handles += [handle, module.register_forward_pre_hook(go_last)]


def in_backward() -> bool:
    """Whether the autograd engine is running a backward pass in this thread."""
    return bool(torch._C._current_graph_task_id() != -1)


class CallCounter:
    """Which call of each module a forward pass of the whole model is at.

    One ReLU can fire twice in a residual block; `path:1` is its second call. Counting starts anew
    with each forward pass of the root module, also after one that was interrupted.
    """

    def __init__(self, root: nn.Module, handles: list[RemovableHandle]) -> None:
        self._calls: dict[str, int] = {}
        self._inside = False
        handles.append(root.register_forward_pre_hook(self._enter, prepend=True))
        handles.append(root.register_forward_hook(self._leave, always_call=True))

    def next_call(self, path: str) -> int:
        """The index of the call of `path` that is happening, counting it.

        Raises:
            SiteError: when no forward pass of the root module is under way.
        """
        if not self._inside:
            raise SiteError(
                f"{path!r} fired outside a forward pass of the whole model; attach to the module "
                "that is called"
            )
        index = self._calls.get(path, 0)
        self._calls[path] = index + 1
        return index

    def _enter(self, *_: Any) -> None:
        self._calls.clear()
        self._inside = True

    def _leave(self, *_: Any) -> None:
        self._inside = False


def tensor_of(output: Any, path: str) -> Tensor:
    """The activations in a module's output: the tensor itself, or the first entry of a tuple.

    Raises:
        SiteError: for any other output; it names the type and, for mappings, the keys.
    """
    value = output
    if isinstance(value, tuple | list) and value:
        value = value[0]
    if isinstance(value, Tensor) and value.is_floating_point() and not value.is_nested:
        return value
    if isinstance(output, dict):
        what = f"a mapping with the keys {', '.join(map(repr, output))}"
    elif isinstance(value, Tensor):
        what = f"a {'nested ' if value.is_nested else ''}tensor of {value.dtype}"
    else:
        what = f"a {type(value).__name__}"
    raise SiteError(
        f"the output of {path!r} is {what}, not a dense floating-point tensor; choose a module "
        "inside or beside it"
    )
