"""The data pipeline that all variational estimators share: folds, coordinates, held-out halves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.information.gaussian import EXACT, canonical, significant
from polycode_plugins.information.samples import Floats, Labels

#: Samples of one held-out block, whose pairs are all scored: for the value, and for stopping early.
BLOCK, LOOK = 1250, 512


@dataclass(frozen=True)
class Folds:
    """Samples split so that every one is held out once, in the coordinates of its training part.

    x, y: training samples [folds, samples, width] as canonical variates.
    held_x, held_y: two halves of the samples held out, each [folds, samples, width]: one decides
    when to stop and the other gives the value, and the other way round.
    correlations: [folds, pairs] of the leading variates, the Gaussian critic; zero pairs for none.
    """

    x: Tensor
    y: Tensor
    held_x: tuple[Tensor, Tensor]
    held_y: tuple[Tensor, Tensor]
    correlations: Tensor

    @property
    def count(self) -> int:
        """Number of folds."""
        return len(self.x)


def split(
    x: Floats,
    y: Floats,
    *,
    folds: int,
    seed: int,
    gaussian: bool,
    device: str | torch.device,
    groups: Labels | None = None,
) -> Folds:
    """Shuffle and split `x` [samples, width x] and `y` [samples, width y] into `folds` folds.

    With `gaussian` the coordinates become canonical variates fitted on the training part alone
    (its significant pairs make the Gaussian critic); without, they are left as they are. Samples
    of one of `groups` [samples] depend on each other and stay together, save where a fold ends in
    the middle of one: critics must not know their held-out samples' neighbours.
    """
    n = len(x)
    order = np.random.default_rng(seed).permutation(n)
    if groups is not None:
        rank = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
        order = order[np.argsort(rank[groups[order]], kind="stable")]
    held = n // folds // 2 * 2
    parts: dict[str, list[Floats]] = {k: [] for k in ("x", "y", "x0", "x1", "y0", "y1")}
    kept: list[Floats] = []
    for fold in range(folds):
        out = order[fold * held : (fold + 1) * held]
        train = np.concatenate([order[: fold * held], order[(fold + 1) * held :]])
        tx, ty, hx, hy = x[train], y[train], x[out], y[out]
        if gaussian:
            found = canonical(tx, ty)
            pairs = significant(found)
            kept.append(np.minimum(found.correlations[:pairs], np.sqrt(1 - EXACT)))
            tx, hx = found.x_variates(tx), found.x_variates(hx)
            ty, hy = found.y_variates(ty), found.y_variates(hy)
        for name, part in zip(parts, (tx, ty, *np.split(hx, 2), *np.split(hy, 2)), strict=True):
            parts[name].append(part)
    pairs = max(map(len, kept), default=0)
    correlations = np.zeros((folds, pairs))
    for row, values in zip(correlations, kept, strict=False):
        row[: len(values)] = values

    def tensor(stack: list[Floats] | Floats) -> Tensor:
        return torch.tensor(np.asarray(stack), dtype=torch.float32, device=device)

    t = {name: tensor(stack) for name, stack in parts.items()}
    halves = (t["x0"], t["x1"]), (t["y0"], t["y1"])
    return Folds(t["x"], t["y"], *halves, tensor(correlations))


def blocks(
    x: Tensor, y: Tensor, size: int = BLOCK, limit: int | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Held-out samples [folds, samples, width] in blocks of `size`, at most `limit` of them."""
    size = min(size, x.shape[1])
    count = x.shape[1] // size
    if limit is not None:
        count = min(count, limit)
    return [
        (x[:, i * size : (i + 1) * size], y[:, i * size : (i + 1) * size]) for i in range(count)
    ]
