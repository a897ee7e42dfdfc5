"""Toy models of superposition, many trained at once (Elhage et al. 2022).

Sparse features x [n] are squeezed through m < n dimensions and read out as ReLU(W W^T x + b).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from polycode_plugins.experiments.training import cosine, seeded, train


class ToyModels(nn.Module):
    """Independent toy models: W [models, features, dimensions], b [models, features]."""

    def __init__(self, models: int, features: int, dimensions: int, seed: int) -> None:
        super().__init__()
        scale = (2 / (features + dimensions)) ** 0.5  # Glorot's
        drawn = torch.randn(models, features, dimensions, generator=seeded(seed, 1))
        self.embedding = nn.Parameter(scale * drawn)
        self.bias = nn.Parameter(torch.zeros(models, features))

    def forward(self, x: Tensor) -> Tensor:
        """Features read out, from x [models, batch, features]."""
        hidden = x @ self.embedding
        return torch.relu(torch.baddbmm(self.bias[:, None], hidden, self.embedding.mT))


def sparse_features(active: Tensor, batch: int, features: int) -> Tensor:
    """[models, batch, features], each 0 with probability 1 - active [models] and else U(0, 1)."""
    drawn = torch.rand(len(active), batch, features, device=active.device)
    p = active[:, None, None]
    return ((drawn - (1 - p)) / p).clamp_min_(0)


def train_toy_models(
    active: Tensor,
    features: int,
    dimensions: int,
    *,
    batch: int,
    steps: int,
    rate: float,
    anneal: bool,
    seed: int,
    path: Path | None,
    device: str = "cpu",
) -> Tensor:
    """Embeddings [models, features, dimensions] of one toy model for each probability in `active`.

    All features are equally important; AdamW as published, with its weight decay. With `anneal` the
    rate falls along half a cosine, so that the embeddings come to rest.
    """
    model = ToyModels(len(active), features, dimensions, seed).to(device)
    active = active.to(device=device, dtype=torch.float32)

    def loss_of(step: int) -> Tensor:
        x = sparse_features(active, batch, features)
        error: Tensor = model(x) - x
        return error.square().mean((1, 2)).sum()

    train(
        model,
        torch.optim.AdamW(model.parameters(), lr=rate),
        loss_of,
        steps,
        seed=seed,
        path=path,
        rate=cosine(rate, steps) if anneal else None,
        every=max(1, steps // 20),
        label="toy models",
    )
    return model.embedding.detach().to("cpu", torch.float64)
