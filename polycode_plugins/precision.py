"""Statistics in the precision they are written in, whatever the loop around them runs the model in.

Under autocast every float32 product would be bfloat16, and where training has asked for fast
products ("high": TensorFloat-32 on GPUs; "medium": bfloat16 on CPUs that have it too) their factors
would be rounded to three digits: a covariance asked for in float32 would not keep its stated error,
and beside a far mean the samples would lose their dependence.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

_EXACT = ("none", "ieee")
# From torch 2.9 on the products of each library have a setting of their own, inherited from that of
# the library and that of all of torch, beside the old one, which they must not contradict.
_EACH: tuple[Any, ...] = ()
_LIBRARIES: tuple[Any, ...] = ()
_backends: Any = torch.backends
if hasattr(_backends, "fp32_precision"):
    _EACH = _backends.cuda.matmul, _backends.mkldnn.matmul
    _LIBRARIES = _backends.cudnn, _backends.mkldnn

# The settings are of the whole process: the first thread to come in changes them, the last one to
# leave puts them back.
_lock = threading.Lock()
_inside = 0
_found: tuple[str, list[str]] | None = None


@contextmanager
def full_precision() -> Iterator[None]:
    """Products in the types of their factors, on the CPU (where statistics end) and the GPU.

    What autocast and torch's settings of float32 products were is put back, also after an error.
    """
    with ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.callback(_leave)
        _enter()
        yield


def _enter() -> None:
    global _inside, _found
    with _lock:
        _inside += 1
        if _found is None and not _exact():
            _found = _make_exact()


def _leave() -> None:
    global _inside, _found
    with _lock:
        _inside -= 1
        if not _inside and _found is not None:
            _put_back(*_found)
            _found = None


def _exact() -> bool:
    if _EACH:
        return all(products.fp32_precision in _EXACT for products in _EACH)
    return torch.get_float32_matmul_precision() == "highest"


def _make_exact() -> tuple[str, list[str]]:
    """Have products computed in full; return the old setting and the one of each library."""
    each = _own()
    for products in _EACH:
        products.fp32_precision = "ieee"
    old = torch.get_float32_matmul_precision()  # raises while the new ones contradict it
    if old != "highest":
        torch.set_float32_matmul_precision("highest")
    return old, each


def _put_back(old: str, each: list[str]) -> None:
    if old != "highest":
        torch.set_float32_matmul_precision(old)
    for products, setting in zip(_EACH, each, strict=True):
        products.fp32_precision = setting


def _own() -> list[str]:
    """What is set for the products of each library themselves, "none" for what they inherit."""
    if not _EACH:
        return []
    with torch.backends.flags(fp32_precision="none"):
        whole = [library.fp32_precision for library in _LIBRARIES]
        found = [products.fp32_precision for products in _EACH]
    return ["none" if a == b else a for a, b in zip(found, whole, strict=True)]
