"""Statistics in the precision they are written in, whatever the loop around them runs the model in.

Under autocast every float32 product would be bfloat16: a covariance asked for in float32 would have
three digits, and beside a far mean the samples would lose their dependence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def without_autocast() -> Iterator[None]:
    """Products in the types of their factors, on the CPU (where statistics end) and the GPU."""
    with ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
