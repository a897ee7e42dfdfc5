"""The control that says how much of a score is the network's: the same model, weights shuffled.

Explanations of units of random transformers can score as well as those of trained ones (Heap et al.
2025), so an honest comparison has both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from polycode_plugins.adapters.undisturbed import modules_of
from polycode_plugins.errors import ModelError


@contextmanager
def random_weights(model: Any, *, seed: int = 0) -> Iterator[None]:
    """Inside, every parameter holds its own entries in random order; afterwards it is as before.

    So each parameter keeps its distribution of values and loses its structure; those that are views
    of one tensor (queries, keys and values held together) are mixed with each other. Takes a copy
    of the parameters in memory.

    Raises:
        ModelError: for a model whose parameters cannot be reached.
    """
    parameters = {id(p): p for m in modules_of(model) for p in m.parameters(recurse=False)}
    if not parameters or not isinstance(model, nn.Module):
        raise ModelError("the weights of this model cannot be reached, so there is no control")
    if any(p.is_meta for p in parameters.values()):
        raise ModelError(
            "this model's weights are elsewhere, so there is no control of random ones"
        )
    generator = torch.Generator().manual_seed(seed)
    kept = [(p, p.detach().clone()) for p in parameters.values()]
    try:
        with torch.no_grad():
            for p, value in kept:
                order = torch.randperm(value.numel(), generator=generator).to(value.device)
                p.data.copy_(value.reshape(-1)[order].reshape(value.shape))
        yield
    finally:
        with torch.no_grad():
            for p, value in kept:
                p.data.copy_(value)
