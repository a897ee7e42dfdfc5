"""Running somebody's model and leaving it exactly as it was found."""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import torch
from torch import nn

_LOG = logging.getLogger(__name__)
_turn = threading.RLock()


def _fresh_turn() -> None:
    """In a fork nobody has the turn, whatever thread had it where the fork was made."""
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_turn)


@contextmanager
def _my_turn() -> Iterator[None]:
    turn = _turn
    if not turn.acquire(blocking=False):
        _LOG.info("waiting for a run of another thread of this process")
        turn.acquire()
    try:
        yield
    finally:
        if turn is _turn:  # else a fork was made meanwhile, which has its own
            turn.release()


@contextmanager
def undisturbed(model: Any = None, *, train_mode: bool = False) -> Iterator[None]:
    """Run a model without gradients and restore its modes, buffers and all random states.

    Modes are the model's and random states the process's: with a model, threads take turns.

    Args:
        model: an nn.Module, or anything else to keep only the random states.
        train_mode: leave every module in the mode it is in (dropout as trained) instead of
            switching to evaluation mode.
    """
    turn = _my_turn() if model is not None else nullcontext()
    with turn, _undisturbed(model, train_mode=train_mode):
        yield


@contextmanager
def _undisturbed(model: Any, *, train_mode: bool) -> Iterator[None]:
    modules = modules_of(model)
    modes = [(m, m.training) for m in modules]
    # In train mode batch normalisation updates its running statistics, and a module may count its
    # calls in any mode: what changes is put back.
    buffers = [
        (m, name, buffer, buffer.detach().clone())
        for m in modules
        for name, buffer in m._buffers.items()
        if buffer is not None and not buffer.is_meta
    ]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if _cuda_in_use() else []
    try:
        if not train_mode and isinstance(model, nn.Module) and any(on for _, on in modes):
            with suppress(NotImplementedError):  # of torch.export, which keeps the mode it had
                model.eval()
        with torch.no_grad():
            yield
    finally:
        for m, training in modes:
            if m.training != training:  # to set an attribute of a module takes 3 us
                m.training = training
        for m, name, buffer, value in buffers:
            # Batch normalisation changes its statistics without a new version, and so does this:
            # a graph that holds them still gets its backward pass.
            if not torch.equal(buffer, value):
                buffer.data.copy_(value)
            if m._buffers.get(name) is not buffer:
                m._buffers[name] = buffer
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def modules_of(model: Any) -> list[nn.Module]:
    """Every module that runs in a forward pass of `model`; none for what is no nn.Module.

    A TransformerBridge keeps the Hugging Face model beside its own tree of modules, and `eval()`
    reaches both.
    """
    roots = (model, getattr(model, "original_model", None))
    found = (m for root in roots if isinstance(root, nn.Module) for m in root.modules())
    return list({id(m): m for m in found}.values())


def _cuda_in_use() -> bool:
    # Asking for more than this would initialise CUDA in a process that only runs on the CPU.
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def seed_batch(seed: int, first_row: int) -> None:
    """Seed torch's global generators for one batch; call inside `undisturbed`.

    A model that draws (dropout in train mode, a sampled latent) then draws the same for a batch
    whether it is the first of a run or the first after an interruption.
    """
    seed_torch((seed * 1_000_003 + first_row) % 2**63)


def seed_torch(seed: int) -> None:
    """Seed torch's global generators; call inside `undisturbed`.

    `torch.manual_seed` would leave a seed behind for a CUDA that is initialised later.
    """
    if _cuda_in_use():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
