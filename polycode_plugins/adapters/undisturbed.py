"""Running somebody's model and leaving it exactly as it was found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def undisturbed(model: Any, *, train_mode: bool = False) -> Iterator[None]:
    """Run a model without gradients and restore its modes, buffers and all random states.

    Args:
        model: an nn.Module, or an object that holds none (then only random states are kept).
        train_mode: leave every module in the mode it is in (dropout as trained) instead of
            switching to evaluation mode.
    """
    module = model if isinstance(model, nn.Module) else None
    modes = [(m, m.training) for m in module.modules()] if module is not None else []
    # In train mode batch normalisation updates its running statistics: those are put back, too.
    buffers = (
        [(b, b.detach().clone()) for b in module.buffers()]
        if module is not None and train_mode
        else []
    )
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        if module is not None and not train_mode:
            module.eval()
        with torch.no_grad():
            yield
    finally:
        for m, training in modes:
            m.training = training
        for buffer, value in buffers:
            buffer.copy_(value)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def seed_batch(seed: int, first_row: int) -> None:
    """Seed torch's global generators for one batch; call inside `undisturbed`.

    A model that draws (dropout in train mode, a sampled latent) then draws the same for a batch
    whether it is the first of a run or the first after an interruption.
    """
    torch.manual_seed((seed * 1_000_003 + first_row) % 2**63)
