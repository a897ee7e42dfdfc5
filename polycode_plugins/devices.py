"""From the host to a device without waiting for it; and what is made on the host stays there.

A GPU works through a queue. A copy from memory that the system may page out waits until the queue
is empty, and with it whoever asked; from pinned memory it is queued as all else is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

HOST = torch.device("cpu")
_asked = threading.local()  # .device: the default that somebody has set, where it is set aside


def modes() -> bool:
    """Whether a default device may be set in this thread, asked in a tenth of a microsecond."""
    return bool(torch._C._len_torch_function_stack())


@contextmanager
def on_host() -> Iterator[None]:
    """While open, tensors that name no device are made on the CPU, where statistics are.

    `torch.set_default_device("cuda")` and `with torch.device("cuda")` would have all of them there,
    generators excepted, and beside those that a model gives.
    """
    default = torch.get_default_device() if modes() else HOST
    if default.type == HOST.type:
        yield
        return
    before = getattr(_asked, "device", None)
    _asked.device = default
    try:
        with HOST:
            yield
    finally:
        _asked.device = before


@contextmanager
def as_found() -> Iterator[None]:
    """Within `on_host`, for what is not ours: the default device that was set."""
    device = getattr(_asked, "device", None)
    if device is None:
        yield
        return
    _asked.device = None
    try:
        with device:
            yield
    finally:
        _asked.device = device


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; from the CPU to a GPU without waiting for what the GPU has to do."""
    if device.type == "cuda" and tensor.device.type == "cpu" and tensor.numel():
        # The allocator of pinned memory keeps it until the copy is done.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
