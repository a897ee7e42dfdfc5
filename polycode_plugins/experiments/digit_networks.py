"""Small networks that tell binary digits, several trained at once, and how they fare held out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polycode_plugins.experiments.training import cosine, seeded, train

#: Every sample is held out once, in one of so many parts.
FOLDS = 4


class Perceptrons(nn.Module):
    """Independent networks of two hidden ReLU layers: [models, samples, inputs] to logits."""

    def __init__(self, models: int, sizes: Sequence[int], seed: int) -> None:
        super().__init__()
        generator = seeded(seed, 2)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inner, outer in itertools.pairwise(sizes):
            drawn = torch.randn(models, inner, outer, generator=generator)
            self.weights.append(drawn * (2 / inner) ** 0.5)  # He's
            self.biases.append(torch.zeros(models, 1, outer))

    def hidden(self, x: Tensor) -> Tensor:
        """The last hidden layer [models, samples, width]."""
        for weight, bias in list(zip(self.weights, self.biases, strict=True))[:-1]:
            x = torch.relu(torch.baddbmm(bias, x, weight))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """A logit for each output digit."""
        return torch.baddbmm(self.biases[-1], self.hidden(x), self.weights[-1])


def fit(
    x: Tensor, y: Tensor, *, width: int, batch: int, steps: int, rate: float, seed: int
) -> Perceptrons:
    """A network for each of x [models, samples, inputs], trained to tell the digits y.

    y is 0 or 1, [models, samples, digits]. Adam, with a rate that falls along half a cosine.
    """
    models, samples, inputs = x.shape
    network = Perceptrons(models, (inputs, width, width, y.shape[2]), seed)
    each = torch.arange(models)[:, None]

    def loss_of(step: int) -> Tensor:
        rows = torch.randint(samples, (models, min(batch, samples)))
        wrong = nn.functional.binary_cross_entropy_with_logits(
            network(x[each, rows]), y[each, rows], reduction="none"
        )
        return wrong.mean((1, 2)).sum()

    train(
        network,
        torch.optim.Adam(network.parameters(), lr=rate),
        loss_of,
        steps,
        seed=seed,
        rate=cosine(rate, steps),
        every=steps,
        label="networks of digits",
    )
    return network


def held_out(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    *,
    width: int,
    batch: int,
    steps: int,
    rate: float,
    seed: int,
) -> Tensor:
    """Which digits are told from x where it is held out, [folds, samples of a fold, digits].

    x is [samples, inputs], y [samples, digits] of 0 and 1. For each of `FOLDS` folds a network is
    trained on the rest, by which x is scaled to unit variance.
    """
    size = len(x) // FOLDS
    rows = np.arange(size * FOLDS).reshape(FOLDS, size)
    rest = np.stack([np.delete(rows, fold, axis=0).ravel() for fold in range(FOLDS)])
    seen_x, seen_y, test_x, test_y = (
        torch.from_numpy(side[which]) for which in (rest, rows) for side in (x, y)
    )
    middle, scale = seen_x.mean(1, keepdim=True), seen_x.std(1, keepdim=True)
    scale = torch.where(scale > 1e-3, scale, torch.ones_like(scale))
    network = fit(
        (seen_x - middle) / scale,
        seen_y,
        width=width,
        batch=batch,
        steps=steps,
        rate=rate,
        seed=seed,
    )
    with torch.no_grad():
        return right_digits(network((test_x - middle) / scale), test_y)


def right_digits(logits: Tensor, y: Tensor) -> Tensor:
    """Which digits y the logits tell."""
    return (logits > 0) == (y > 0.5)
