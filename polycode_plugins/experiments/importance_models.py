"""Toy models whose features differ in importance, many trained at once.

Three architectures squeeze n features through m dimensions:

- "quadratic" (Scherlis et al. 2022): sum_d (W^T x)_d^2 has to tell sum_i v_i x_i^2 but for a
  constant; inputs have random signs. `theory.optimal_allocation` is its optimum.
- "relu" (Elhage et al. 2022): ReLU(W W^T x + b) has to tell every x_i >= 0, and squared errors
  count v_i^2 times.
- "linear": W W^T x has to tell every x_i of random sign, with the same weights.

A feature that is left out costs v_i^2 times a constant in all of them. Inputs have mean square 1
and a kurtosis E[x^4] = k, by either of two ways:

- "sparse": 0 with probability 1 - 9/(5k), and else uniform;
- "dense": a power of a Gaussian variable, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polycode_plugins.errors import DataError
from polycode_plugins.experiments.toy_models import ToyModels, sparse_features
from polycode_plugins.experiments.training import cosine, seeded, train

Architecture: TypeAlias = Literal["quadratic", "relu", "linear"]
Inputs: TypeAlias = Literal["sparse", "dense"]
Floats: TypeAlias = NDArray[np.float64]
#: E[x^4] / E[x^2]^2 of x ~ U(0, 1), the least of sparse inputs.
LEAST_KURTOSIS = 9 / 5
#: A feature is ignored below this capacity, and has a dimension of its own above 1 less this.
TOLERANCE = 0.05
#: Batches that the held-out loss is the mean of.
HELD_OUT = 50


@dataclass(frozen=True)
class Trained:
    """Trained models: embedding float64 [models, features, dimensions]; loss [models], held out."""

    embedding: Floats
    loss: Floats


class QuadraticModels(nn.Module):
    """Independent quadratic models: embedding [models, features, dimensions]."""

    def __init__(self, models: int, features: int, dimensions: int, seed: int) -> None:
        super().__init__()
        scale = (2 / (features + dimensions)) ** 0.5  # Glorot's
        drawn = torch.randn(models, features, dimensions, generator=seeded(seed, 1))
        self.embedding = nn.Parameter(scale * drawn)

    def forward(self, x: Tensor) -> Tensor:
        """sum_d (W^T x)_d^2 [models, batch], of x [models, batch, features]."""
        squares: Tensor = (x @ self.embedding).square().sum(2)
        return squares


class LinearModels(ToyModels):
    """Independent linear models; the bias, which inputs of mean 0 do not need, is not used."""

    def forward(self, x: Tensor) -> Tensor:
        """Features read out [models, batch, features], of x of that shape."""
        return x @ self.embedding @ self.embedding.mT


_KINDS: dict[Architecture, type[QuadraticModels] | type[ToyModels]] = {
    "quadratic": QuadraticModels,
    "relu": ToyModels,
    "linear": LinearModels,
}


def sampler(kurtosis: Tensor, inputs: Inputs = "sparse") -> Callable[[int, int], Tensor]:
    """A function of (batch, features) that draws x >= 0 [models, batch, features].

    Mean square 1, and the `kurtosis` [models] given.

    Raises:
        DataError: for a kurtosis that such inputs cannot have.
    """
    least = LEAST_KURTOSIS if inputs == "sparse" else 1.05
    if bool((kurtosis < least - 1e-6).any()):
        raise DataError(
            f"{inputs} inputs have a kurtosis of at least {least:g}, not {float(kurtosis.min()):g}"
        )
    if inputs == "sparse":
        p = (LEAST_KURTOSIS / kurtosis).clamp(max=1).float()
        scale = (3 / p).sqrt()[:, None, None]
        return lambda batch, features: sparse_features(p, batch, features) * scale
    powers = [_gaussian_power(k) for k in kurtosis.tolist()]
    power = torch.tensor(powers, device=kurtosis.device)[:, None, None]
    # E|z|^2a = 2^a Gamma(a + 1/2) / sqrt(pi)
    mean_square = torch.exp(power * math.log(2) + torch.lgamma(power + 0.5)) / math.pi**0.5

    def draw(batch: int, features: int) -> Tensor:
        z = torch.randn(len(power), batch, features, device=power.device)
        return torch.div(z.abs().pow(power), mean_square.sqrt())

    return draw


def _gaussian_power(kurtosis: float) -> float:
    """The a at which |z|^a, z standard normal, has that kurtosis."""
    from scipy.optimize import brentq
    from scipy.special import gammaln

    def excess(a: float) -> float:
        log = gammaln(2 * a + 0.5) + 0.5 * math.log(math.pi) - 2 * gammaln(a + 0.5)
        return float(log - math.log(kurtosis))

    return float(brentq(excess, 1e-3, 20.0))


def train_importance_models(
    architecture: Architecture,
    importance: Tensor,
    kurtosis: Tensor,
    dimensions: int,
    *,
    batch: int,
    steps: int,
    rate: float,
    seed: int,
    path: Path | None,
    inputs: Inputs = "sparse",
    device: str = "cpu",
) -> Trained:
    """One model for each row of `importance`.

    Adam, with a rate that falls from `rate` to 0 along half a cosine, so that embeddings come to
    rest.

    Args:
        architecture: "quadratic", "relu" or "linear".
        importance: v [models, features].
        kurtosis: k [models].
        dimensions: m.
        batch: samples of a step.
        steps: of training.
        rate: of learning, at first.
        seed: of weights and samples.
        path: of the state, to go on from; None keeps none.
        inputs: "sparse" or "dense".
        device: where it trains.
    """
    models, features = importance.shape
    v = importance.to(device=device, dtype=torch.float32)
    draw = sampler(kurtosis.to(device), inputs)
    model = _KINDS[architecture](models, features, dimensions, seed).to(device)

    def losses() -> Tensor:
        x = draw(batch, features)
        if architecture != "relu":
            x = x * (2.0 * torch.randint_like(x, 2) - 1)
        if architecture == "quadratic":
            error: Tensor = model(x) - (x.square() @ v[:, :, None])[:, :, 0]
            return error.var(1)  # the best constant takes the mean away
        error = (model(x) - x) * v[:, None]
        return error.square().sum(2).mean(1)

    train(
        model,
        torch.optim.Adam(model.parameters(), lr=rate),
        lambda step: losses().sum(),
        steps,
        seed=seed,
        path=path,
        rate=cosine(rate, steps),
        every=max(1, steps // 20),
        label=f"{architecture} models",
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed + 1)
        loss = torch.stack([losses().double() for _ in range(HELD_OUT)]).mean(0)
    return Trained(model.embedding.detach().double().cpu().numpy(), loss.cpu().numpy())


def kinds(
    capacity: Floats, tolerance: float = TOLERANCE
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Which features are ignored, polysemantic and monosemantic."""
    ignored, own = capacity < tolerance, capacity > 1 - tolerance
    return ignored, ~(ignored | own), own
