"""A GPU that is none: tensors on "cuda" whose values lie on the CPU, and what the host waits for.

A tensor of the device holds a tensor of the CPU, on which every operation runs for real, so that
results can be compared. What a real device would refuse (tensors of both places in one operation)
is refused. What a real one would make the host wait for is noted, with the line that asked:

* results that the host needs: numbers (`.item()`, `bool()`, `equal`), and shapes that depend on
  values (`nonzero`, boolean masks as an index, `unique`). torch tags these operations itself, since
  whoever compiles or captures them has the same trouble.
* copies between the places, unless they are `non_blocking` and the host's side is pinned: torch's
  blocking copy waits for all work that was queued before it, in both directions.
* decompositions, which look at an error code on the host.

An operation that is none of these and is not in `QUIET` is noted too, as one that nobody has
judged: so that what is new cannot wait unseen.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import polycode_plugins

DEVICE = torch.device("cuda", 0)
PACKAGE = str(Path(polycode_plugins.__file__).parent)
_PASSED_OVER = ("torch", "einops", "jaxtyping", "numpy", "contextlib", "functools")

# Views, elementwise operations, reductions, products, sorts, copies by an index that is there: a
# kernel is queued, and the host goes on.
_NAMES = """
__rshift__ _to_copy _unsafe_view abs add add_ addmm_ addr_ alias all amax aminmax any arange argmax
baddbmm_ bitwise_and bitwise_not bitwise_or bitwise_xor bmm cat clamp_min clone cumprod cumsum
detach diagonal div div_ empty eq expand floor_divide gather ge gt index index_add_ index_select
isfinite le linalg_vector_norm logical_and lt masked_fill maximum mean mm mul mul_ ne neg new_zeros
permute pow remainder scalar_tensor scatter select sign slice split stack sub sub_ sum topk
transpose tril triu unsqueeze view where zeros
"""
QUIET = frozenset(_NAMES.split())
_LOOKED_AT = ("linalg_", "_linalg", "cholesky", "lu_", "geqrf", "multinomial", "histc", "bincount")
_DEPENDENT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class OnDevice(Tensor):
    """A tensor that says it is on the device, and the values [same shape] that it has."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        pairs = zip(held.shape, held.stride(), strict=True)
        extent = held.storage_offset() + 1 + sum(max(0, n - 1) * step for n, step in pairs)
        storage = torch.empty(extent, dtype=held.dtype, device="meta")
        shape = storage.as_strided(held.shape, held.stride(), held.storage_offset())
        made: OnDevice = torch.Tensor._make_subclass(
            cls, shape, False, dispatch_device=True, device_for_backend_keys=DEVICE
        )
        made.held = held
        return made

    def tolist(self) -> Any:
        """As of any tensor on a device: by way of a copy."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if op is torch.ops.prim.device.default:
            return DEVICE
        raise RuntimeError(f"{op} of a tensor on the simulated device, outside of its context")


@dataclass(frozen=True, order=True)
class Wait:
    """Something that the host waits for.

    Attributes:
        what: the operation, and why it waits.
        where: "file:line function" in the package; "" where a model, or a test, asked.
    """

    where: str
    what: str


@dataclass
class Noted:
    """What has been noted since the last `clear`."""

    waits: Counter[Wait] = field(default_factory=Counter)
    operations: int = 0  # on the device, by the package

    def clear(self) -> None:
        """Begin anew."""
        self.waits.clear()
        self.operations = 0

    def ours(self) -> dict[Wait, int]:
        """Those that the package asked for."""
        return {wait: n for wait, n in sorted(self.waits.items()) if wait.where}


class SimulatedDevice(TorchDispatchMode):
    """While open, `"cuda"` is a device whose values lie on the CPU; see the module.

    Attributes:
        noted: what the host waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        # As that of torch's own fake tensors: else torch would start a driver for "cuda".
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE
        # So that a torch that was built for GPUs asks no driver which of them is in use.
        torch._C._ensureCUDADeviceGuardSet()
        self.noted = Noted()
        self._around = ExitStack()

    def __enter__(self) -> SimulatedDevice:
        self._around.callback(
            torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors()
        )
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes them there, and moves them
        room = patch.multiple(
            torch.cuda, mem_get_info=lambda _: (2**36, 2**36), memory_allocated=lambda _: 0
        )
        self._around.enter_context(room)
        self._around.enter_context(torch.backends.cudnn.flags(enabled=False))  # not on a CPU
        submit = ThreadPoolExecutor.submit

        def submitted(pool: Any, work: Any, *args: Any, **kwargs: Any) -> Any:
            return submit(pool, self._in_a_thread, partial(work, *args, **kwargs))

        self._around.enter_context(patch.object(ThreadPoolExecutor, "submit", submitted))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._around.close()

    def _in_a_thread(self, work: Any) -> Any:
        """Modes are open in one thread: work of another has one of its own."""
        another = SimulatedDevice()
        another.noted = self.noted
        TorchDispatchMode.__enter__(another)
        try:
            return work()
        finally:
            TorchDispatchMode.__exit__(another, None, None, None)

    def put(self, model: nn.Module) -> nn.Module:
        """A model with its weights and buffers on the device."""
        for module in model.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    moved = OnDevice(weight.detach().clone())
                    module._parameters[name] = nn.Parameter(moved, requires_grad=False)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = OnDevice(buffer.detach().clone())
        return model

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [*_tensors(args), *_tensors(kwargs)]
        held = {id(t.held): t for t in given if isinstance(t, OnDevice)}
        name = op.overloadpacket.__name__
        asked = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
        if op is torch.ops.prim.device.default:
            return DEVICE
        if name in ("is_pinned", "_pin_memory"):
            return self._pinned(name, args[0])
        lands = asked == DEVICE.type if asked else bool(held)
        if not held and not lands:
            return op(*args, **kwargs)
        if asked != "meta":
            self._judge(op, name, args, kwargs, given)
        if asked == DEVICE.type:
            kwargs["device"] = torch.device("cpu")
        if name == "copy_":
            args, lands = args[:2], isinstance(args[0], OnDevice)
        for unlike in ("pin_memory", "non_blocking"):
            kwargs.pop(unlike, None)
        found = op(*_each(_inside, args), **_each(_inside, kwargs))
        if name == "_to_copy" and asked and found is _inside(args[0]):
            found = found.clone()

        def outside(value: Any) -> Any:
            if not isinstance(value, Tensor) or not lands:
                return value
            return held[id(value)] if id(value) in held else OnDevice(value)

        return _each(outside, found)

    def _pinned(self, name: str, tensor: Tensor) -> Any:
        if name == "is_pinned":
            return getattr(tensor, "pinned", False)
        made = tensor.clone()
        made.pinned = True  # type: ignore[attr-defined]
        return made

    def _judge(
        self, op: Any, name: str, args: Any, kwargs: dict[str, Any], given: list[Tensor]
    ) -> None:
        where = _asked_by()
        self.noted.operations += bool(where)
        why = _why_it_waits(op, name, args, kwargs)
        if why:
            self.noted.waits[Wait(where, f"{name}: {why}")] += 1
        if name in ("_to_copy", "copy_", "index", "index_put", "index_put_"):
            return
        apart = [
            t for t in given if not isinstance(t, OnDevice) and t.dim() and t.device.type == "cpu"
        ]
        if apart and len(apart) < len(given):
            raise RuntimeError(f"{name} of tensors on the CPU and on the device, at {where}")


def _why_it_waits(op: Any, name: str, args: Any, kwargs: dict[str, Any]) -> str:
    if name in ("_to_copy", "copy_"):
        return _copies(name, args, kwargs)
    if name in ("index", "index_put", "index_put_"):
        indices = [i for i in args[1] if i is not None]
        if any(i.dtype in (torch.bool, torch.uint8) for i in indices):
            return "the shape depends on a mask"
        away = any(not isinstance(i, OnDevice) and i.dim() for i in indices)
        return "an index is copied from the CPU" if away else ""
    if name == "repeat_interleave" and kwargs.get("output_size") is not None:
        return ""
    if _DEPENDENT & set(op.tags):
        return "the host needs what it gives"
    if name in QUIET:
        return ""
    if name.startswith(_LOOKED_AT):
        return "its error code is looked at"
    return "nobody has judged whether it waits"


def _copies(name: str, args: Any, kwargs: dict[str, Any]) -> str:
    source = args[1] if name == "copy_" else args[0]
    target = args[0] if name == "copy_" else None
    if target is None:
        asked = kwargs.get("device")
        there = (
            isinstance(source, OnDevice) if asked is None else torch.device(asked).type == "cuda"
        )
        if asked is not None and torch.device(asked).type == "meta":
            return ""
    else:
        there = isinstance(target, OnDevice)
    here = isinstance(source, OnDevice)
    if here == there:
        return ""
    waits = not (args[2] if name == "copy_" and len(args) > 2 else kwargs.get("non_blocking"))
    on_host = target if here else source
    if here:
        if waits:
            return "copied to the CPU"
        pinned = target is not None and getattr(on_host, "pinned", False)
        return "" if pinned else "copied to memory of the CPU that is not pinned"
    if waits:
        return "copied from the CPU"
    return "" if getattr(on_host, "pinned", False) else "copied from memory that is not pinned"


def _asked_by() -> str:
    """Where in the package the operation under way was asked for; "" for a model's own, or a
    test's."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE):
            short = file[len(PACKAGE) + 1 :]
            return f"{short}:{frame.f_lineno} {frame.f_code.co_name}"
        module = frame.f_globals.get("__name__", "")
        if module.startswith("torch.nn.modules") and frame.f_code.co_name == "forward":
            return ""
        passed = module.partition(".")[0] in _PASSED_OVER or file == __file__ or file[0] == "<"
        if not passed:
            return ""
        frame = frame.f_back
    return ""


def _tensors(values: Any) -> Iterator[Tensor]:
    """Those among the arguments of an operation, which are lists of lists at most.

    torch.utils._pytree knows all containers, and takes longer than the operations.
    """
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple | dict):
            yield from _tensors(value)


def _each(function: Callable[[Any], Any], values: Any) -> Any:
    """What a function makes of all that is in arguments, or in what came of them."""
    if isinstance(values, dict):
        return {name: _each(function, value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        kind = list if isinstance(values, list) else tuple
        return kind(_each(function, value) for value in values)
    return function(values)


def _inside(value: Any) -> Any:
    return value.held if isinstance(value, OnDevice) else value
