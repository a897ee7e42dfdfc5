"""The networks that score pairs: several critics side by side in one batched matrix product."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN, DEPTH, EMBEDDING = 64, 3, 32


class SeparableCritics(nn.Module):
    """T(x, y) = Gaussian log ratio + f(x) . g(y) + a(x) + b(y) for every pair of a batch.

    `correlations` [critics, pairs] are those of the leading coordinates of x and y, which must be
    canonical variates; with an empty last axis the Gaussian term is absent. f and g are networks
    of 3 hidden layers of 64 SiLU units with 32 outputs each. All pairs of a batch then cost one
    matrix product, not one pass of a network each. At the start f . g + a + b = 0, so training can
    only add to what the Gaussian knows.
    """

    def __init__(
        self, x_width: int, y_width: int, correlations: Tensor, generator: torch.Generator
    ) -> None:
        super().__init__()
        critics = len(correlations)
        self.x_weights, self.x_biases = _network(critics, x_width, generator)
        self.y_weights, self.y_biases = _network(critics, y_width, generator)
        with torch.no_grad():
            self.y_weights[-1].zero_()
            self.x_weights[-1][..., -1].zero_()
        r2 = correlations[:, None] ** 2
        self.register_buffer("quadratic", r2 / (2 * (1 - r2)))
        self.register_buffer("bilinear", correlations[:, None] / (1 - r2))
        self.register_buffer("offset", -0.5 * torch.log1p(-r2).sum(-1, keepdim=True))
        self.quadratic: Tensor
        self.bilinear: Tensor
        self.offset: Tensor

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Scores [critics, samples, samples] of x and y, each [critics, samples, width]."""
        f = _apply(x, self.x_weights, self.x_biases)
        g = _apply(y, self.y_weights, self.y_biases)
        pairs = self.quadratic.shape[-1]
        x_lead, y_lead = x[..., :pairs], y[..., :pairs]
        a = f[..., -1:] + self.offset - (self.quadratic * x_lead**2).sum(-1, keepdim=True)
        b = g[..., -1:] - (self.quadratic * y_lead**2).sum(-1, keepdim=True)
        one = torch.ones_like(a)
        left = torch.cat([f[..., :-1], a, one, self.bilinear * x_lead], -1)
        right = torch.cat([g[..., :-1], one, b, y_lead], -1)
        return torch.bmm(left, right.transpose(1, 2))


def _network(
    critics: int, width: int, generator: torch.Generator
) -> tuple[nn.ParameterList, nn.ParameterList]:
    sizes = [width, *[HIDDEN] * DEPTH, EMBEDDING + 1]
    weights, biases = nn.ParameterList(), nn.ParameterList()
    for layer, (inner, outer) in enumerate(pairwise(sizes)):
        last = layer == DEPTH
        scale = (0.5 if last else 0.7) * math.sqrt(2 / inner)
        weights.append(torch.randn(critics, inner, outer, generator=generator) * scale)
        biases.append(torch.randn(critics, 1, outer, generator=generator) * (0 if last else 0.3))
    return weights, biases


def _apply(values: Tensor, weights: nn.ParameterList, biases: nn.ParameterList) -> Tensor:
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        values = torch.baddbmm(bias, values, weight)
        if layer < len(weights) - 1:
            values = F.silu(values)
    return values
