"""A small model with everything that a trace of nnsight may trip over, and what is right there."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import LAYERS
from torch import Tensor, nn

ROWS = torch.randn(11, 6, generator=torch.Generator().manual_seed(2))
TEXTS = ["hello world this is a test of tiny models", "a b c", "quick models are tiny and quick"]
BLOCKS = [f"model.transformer.h.{i}" for i in range(LAYERS)]


class Twice(nn.Module):
    """An in-place ReLU that fires twice, a tuple, a shared module, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.relu, self.pair = nn.Linear(6, 6), nn.ReLU(inplace=True), Pair()
        self.drop, self.last, self.unused = nn.Dropout(0.5), nn.Linear(6, 2), nn.Linear(6, 2)
        self.again = self.first

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.pair(self.relu(self.first(x)))[0])
        return self.last(self.drop(x))


class Pair(nn.Linear):
    def __init__(self) -> None:
        super().__init__(6, 6)

    def forward(self, x: Tensor) -> Any:
        return super().forward(x), None


def expected_of(model: Twice, x: Tensor = ROWS) -> dict[str, Tensor]:
    with torch.no_grad():
        first = model.first(x)
        relu = first.relu()
        pair = model.pair(relu)[0]
        return {
            "model.first": first,
            "model.relu:0": relu,
            "model.pair": pair,
            "model.relu:1": pair.relu(),
            "model.last": model.last(pair.relu()),
        }
