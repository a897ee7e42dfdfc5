"""MINE as the papers' authors ran it, errors included, so that their curve can be reproduced."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from polycode_plugins.errors import DataError
from polycode_plugins.information.bounds import naive_log_mean_exp
from polycode_plugins.information.mine import steps_shown
from polycode_plugins.information.samples import Estimate, Floats

#: Samples to train on and to validate on, and (rate, epochs, batch) of the two stages.
TRAIN, VALIDATION = 40_960, 4_096
STAGES = ((1e-4, 100, 1024), (5e-6, 50, 2048))
#: Epochs whose validation bounds the reported value averages.
ROLLING = 10


def estimate_as_published(
    x: Floats,
    y: Floats,
    *,
    seed: int = 0,
    stages: tuple[tuple[float, int, int], ...] = STAGES,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Estimate:
    """Marshall & Kirchner 2024's MINE [nats], samples taken as they are (nothing standardised).

    One network of 3 hidden layers of 64 ReLU units on (x, y) together; Adam; the gradient of the
    batch's own bound, which is biased; ln(mean(exp(T))) computed as written, which overflows at
    T > 88; the value is the mean validation bound of the last 10 epochs, so nothing is selected.
    The first 40,960 samples train and the next 4,096 validate; fewer are split in the same
    proportion. The text leaves open, and this fixes: Glorot-uniform weights and zero biases, y
    shuffled within the batch for the second term, the whole validation set in one batch.

    The curve has one row per epoch. Its error is the spread of those last epochs only.
    Raises `DataError` if the bound overflows, as the naive logarithm can.
    """
    total = min(len(x), TRAIN + VALIDATION)
    train = round(total * TRAIN / (TRAIN + VALIDATION))
    generator = torch.Generator().manual_seed(seed)
    network = _network(x.shape[1] + y.shape[1], generator).to(device)
    order = torch.randperm(len(x), generator=generator)[:total].numpy()
    xs, ys = (torch.tensor(v[order], dtype=torch.float32, device=device) for v in (x, y))
    held_x, held_y = xs[train:], ys[train:]
    bounds: list[tuple[float, float, float]] = []
    optimizer = torch.optim.Adam(network.parameters())
    epochs = [(rate, batch) for rate, count, batch in stages for _ in range(count)]
    for epoch in steps_shown("mine-as-published", len(epochs), progress):
        rate, batch = epochs[epoch - 1]
        for group in optimizer.param_groups:
            group["lr"] = rate
        shuffle = torch.randperm(train, generator=generator).to(device)
        seen = []
        for rows in torch.split(shuffle, batch):
            bound = _bound(network, xs[rows], ys[rows], generator)
            optimizer.zero_grad()
            (-bound).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            seen.append(bound.detach())
        with torch.no_grad():
            held = float(_bound(network, held_x, held_y, generator))
        if not math.isfinite(held):
            raise DataError(
                f"the published MINE overflowed in epoch {epoch} (its logarithm of a mean of "
                "exponentials is the naive one); use 'mine' instead."
            )
        bounds.append((epoch, float(torch.stack(seen).mean()), held))
    curve = np.array(bounds)
    last = curve[-ROLLING:, 2]
    return Estimate(float(last.mean()), float(last.std()), curve=curve)


def _bound(network: nn.Sequential, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """The Donsker-Varadhan bound of a batch against itself with y shuffled."""
    shuffled = y[torch.randperm(len(y), generator=generator).to(y.device)]
    together = network(torch.cat([x, y], 1))[:, 0]
    apart = network(torch.cat([x, shuffled], 1))[:, 0]
    bound: Tensor = together.mean() - naive_log_mean_exp(apart)
    return bound


def _network(width: int, generator: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    sizes = (width, 64, 64, 64, 1)
    for inner, outer in pairwise(sizes):
        # skip_init: the layer's own initialisation would draw from the global random state.
        linear: nn.Linear = nn.utils.skip_init(nn.Linear, inner, outer)  # type: ignore[no-untyped-call]
        limit = math.sqrt(6 / (inner + outer))
        with torch.no_grad():
            drawn = torch.rand(outer, inner, generator=generator)
            linear.weight.copy_((2 * drawn - 1) * limit)
            linear.bias.zero_()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
