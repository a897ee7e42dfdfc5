"""What the tests of several adapters share: a small metric, a count of hooks, random states."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from polycode_plugins.activations import Activations, Site
from polycode_plugins.adapters.base import Adapter, DataOptions
from polycode_plugins.metrics.base import Accumulator, Metric, Result


class Tally(Accumulator):
    """Count and sum of the samples: enough to tell which activations came, and how often."""

    name = "tally"

    def __init__(self) -> None:
        self.count, self.total = 0, torch.zeros((), dtype=torch.float64)

    def options(self) -> dict[str, Any]:
        return {}

    def update(self, activations: Activations) -> None:
        rows = activations.matrix().double()
        self.count, self.total = self.count + rows.shape[0], self.total + rows.sum(dim=0)

    def merge(self, other: Tally) -> None:
        self.count, self.total = self.count + other.count, self.total + other.total

    def state(self) -> dict[str, Tensor]:
        return {"count": torch.tensor(self.count), "total": self.total}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.count, self.total = int(state["count"]), state["total"]

    @property
    def n_samples(self) -> int:
        return self.count


@dataclasses.dataclass(frozen=True, eq=False)
class MeanResult(Result):
    mean: Tensor
    n_samples: int


@dataclasses.dataclass(frozen=True)
class Mean(Metric):
    name: ClassVar[str] = "mean"
    result: ClassVar[type[Result]] = MeanResult

    def accumulators(self) -> dict[str, Accumulator]:
        return {"tally": Tally()}

    def compute(self, accumulators: Mapping[str, Accumulator], site: Site) -> MeanResult:
        tally = accumulators["tally"]
        assert isinstance(tally, Tally)
        return MeanResult(tally.total / tally.count, tally.count)


def hooks_on(model: nn.Module) -> int:
    """How many hooks of any kind hang on the modules of a model."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    flags = ("_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs")
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in (*kinds, *flags))


def streamed(adapter: Adapter, data: Any, sites: Any = None, **options: Any) -> dict[str, Tensor]:
    """{site: samples [n, features]} of all batches."""
    train_mode = options.pop("train_mode", False)
    parts: dict[str, list[Tensor]] = {}
    stream = adapter.stream(data, sites, options=DataOptions(**options), train_mode=train_mode)
    for batch in stream:
        for name, activations in batch.items():
            parts.setdefault(name, []).append(activations.matrix())
    return {name: torch.cat(values) for name, values in parts.items()}


def random_states() -> tuple[Any, ...]:
    state = np.random.get_state()  # noqa: NPY002
    return random.getstate(), state[1].tobytes(), state[2:], torch.get_rng_state().tolist()


def condition_of(model: nn.Module) -> dict[str, Any]:
    """Everything of a model that a guest must leave as it was, and the random states."""
    return {
        "modes": [m.training for m in model.modules()],
        "grad": [p.requires_grad for p in model.parameters()],
        "gradients": [None if p.grad is None else _digest(p.grad) for p in model.parameters()],
        "values": {name: _digest(value) for name, value in model.state_dict().items()},
        "buffers": [id(b) for b in model.buffers()],
        "hooks": hooks_on(model),
        "random": random_states(),
        "grad_mode": torch.is_grad_enabled(),
    }


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.detach().cpu().numpy().tobytes()).hexdigest()
