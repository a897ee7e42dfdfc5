"""What the checks of adapters look at: a model's outputs, hooks, modes, weights, random states."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polycode_plugins.adapters.undisturbed import modules_of
from polycode_plugins.testing.outcome import fail, skip


class Interruption(Exception):
    """Raised on purpose, to see what is left behind."""


def root_of(model: Any) -> nn.Module:
    """The module that is called, where there is one."""
    if not isinstance(model, nn.Module):
        skip(f"the model is a {type(model).__name__}, no nn.Module that could be watched")
    return model


def hooks_on(model: Any) -> int:
    """How many hooks hang on all modules of a model."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in modules_of(model) for kind in kinds)


@contextmanager
def outputs_of(model: Any) -> Iterator[list[Tensor]]:
    """Copies of every tensor that the model returns while open."""
    found: list[Tensor] = []

    def look(_module: nn.Module, _args: Any, output: Any) -> None:
        found.extend(t.detach().clone() for t in tensors_in(output))

    handle = root_of(model).register_forward_hook(look)
    try:
        yield found
    finally:
        handle.remove()
    if not found:
        fail("the model returned no tensor in a forward pass of the adapter")


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of a nested output, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)


def same_tensors(a: list[Tensor], b: list[Tensor]) -> bool:
    """Whether both lists hold the same tensors, bit by bit."""
    return len(a) == len(b) and all(
        x.shape == y.shape and x.dtype == y.dtype and torch.equal(x, y)
        for x, y in zip(a, b, strict=True)
    )


@contextmanager
def failing(model: Any) -> Iterator[None]:
    """While open, a forward pass of the model raises `Interruption` when it begins."""

    def fail_now(*_: Any) -> None:
        raise Interruption

    handle = root_of(model).register_forward_pre_hook(fail_now)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def as_found(model: Any) -> Iterator[None]:
    """Put modes and gradient flags back, whatever a check and the plugin did to them."""
    modes = [(m, m.training) for m in modules_of(model)]
    flags = [(p, p.requires_grad) for m in modules_of(model) for p in m.parameters(recurse=False)]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def mixed(model: Any) -> Iterator[None]:
    """Modules and parameters in turns: in train mode and not, with gradients and without."""
    for i, module in enumerate(modules_of(model)):
        module.training = i % 2 == 0
        for j, parameter in enumerate(module.parameters(recurse=False)):
            parameter.requires_grad_((i + j) % 2 == 0 and parameter.is_floating_point())
    yield


@dataclass(frozen=True)
class Condition:
    """One aspect of what a guest must leave as it was: modes, gradients, weights or random."""

    aspect: str
    value: Any

    @classmethod
    def of(cls, model: Any, aspect: str) -> Condition:
        """The condition a model, or the global random states, are in."""
        modules = modules_of(model)
        parameters = list({id(p): p for m in modules for p in m.parameters(recurse=False)}.values())
        if aspect == "modes":
            return cls(aspect, [m.training for m in modules])
        if aspect == "gradients":
            gradients = [None if p.grad is None else digest(p.grad) for p in parameters]
            flags = [p.requires_grad for p in parameters]
            return cls(aspect, (torch.is_grad_enabled(), flags, gradients))
        if aspect == "weights":
            buffers = {id(b): b for m in modules for b in m.buffers(recurse=False)}
            return cls(aspect, [digest(t) for t in (*parameters, *buffers.values())])
        name, key, at, *_ = np.random.get_state()  # noqa: NPY002
        numpy_state = (str(name), np.asarray(key).tobytes(), at)
        return cls(aspect, (random.getstate(), numpy_state, digest(torch.get_rng_state())))

    def require_same(self, model: Any, when: str) -> None:
        """Fail unless it is as it was."""
        if Condition.of(model, self.aspect) != self:
            fail(f"{_ASPECTS[self.aspect]} {when}")


_ASPECTS = {
    "modes": "modules are in another mode (train or evaluation)",
    "gradients": "gradients, requires_grad flags or the grad mode differ",
    "weights": "parameters or buffers hold other values",
    "random": "a global random state has moved",
}


def digest(values: Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    flat = values.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()
