"""From the host to a device without waiting for it.

A GPU works through a queue. A copy from memory that the system may page out waits until the queue
is empty, and with it whoever asked; from pinned memory it is queued as all else is.
"""

from __future__ import annotations

import torch
from torch import Tensor

HOST = torch.device("cpu")


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; from the CPU to a GPU without waiting for what the GPU has to do."""
    if device.type == "cuda" and tensor.device.type == "cpu" and tensor.numel():
        # The allocator of pinned memory keeps it until the copy is done.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
