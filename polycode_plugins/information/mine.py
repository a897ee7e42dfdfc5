"""Training critics for a variational bound, with a held-out value and the best weights restored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.errors import DataError
from polycode_plugins.information.bounds import BOUNDS, Bound, MovingAverage
from polycode_plugins.information.critics import SeparableCritics
from polycode_plugins.information.folds import LOOK, Folds, blocks
from polycode_plugins.information.samples import Estimate, Floats


@dataclass(frozen=True)
class Training:
    """How the critics are trained; the defaults are what the benchmark ran with.

    steps: at most so many steps of Adam, the rate falling along a cosine to a twentieth.
    batch: samples of a step; all batch^2 pairs are scored.
    rate: learning rate, reached after 50 steps.
    check: steps between two looks at the held-out samples.
    patience: looks without a better value, on either half, after which a critic is done.
    average: decay of the running mean of the weights, which is what is valued and kept.
    """

    steps: int = 700
    batch: int = 192
    rate: float = 4e-3
    check: int = 50
    patience: int = 6
    average: float = 0.98


#: The training of a critic from scratch, and of one that starts from another bound's.
TRAINING = Training()
REFINEMENT = Training(steps=100, rate=1e-3, patience=2)


@dataclass(frozen=True)
class Fitted:
    """An estimate and the weights that made it, of the critics chosen on either held-out half."""

    estimate: Estimate
    weights: tuple[list[Tensor], list[Tensor]]


def fit(
    name: str,
    folds: Folds,
    *,
    seed: int,
    training: Training | None = None,
    start: Fitted | None = None,
    progress: bool = False,
) -> Fitted:
    """Train one critic per fold for the bound `name` and value it on samples it never saw [nats].

    Early stopping looks at one half of the samples held out and the value comes from the other,
    then the halves change places; so every sample is valued once by critics that were neither
    trained nor selected on it. Each fold starts from its own random weights (the restarts), or
    from those of `start`. The global random state is neither read nor changed.

    Raises `DataError` if the bound diverges.
    """
    bound, plan = BOUNDS[name], training or (REFINEMENT if start else TRAINING)
    generator = torch.Generator().manual_seed(seed)
    device = folds.x.device
    critics = SeparableCritics(
        folds.x.shape[-1], folds.y.shape[-1], folds.correlations.cpu(), generator
    ).to(device)
    weights: list[Tensor] = list(critics.parameters())
    if start is not None:
        _load(weights, start.weights[0])
    average = [w.detach().clone() for w in weights]
    kept = _Best(critics, average, bound, folds)
    optimizer = torch.optim.Adam(weights, lr=plan.rate, fused=device.type in ("cpu", "cuda"))
    running, n = MovingAverage(), folds.x.shape[1]
    batch = min(plan.batch, n)
    curve: list[tuple[float, float, float]] = []
    position, shuffled_x, shuffled_y = n, folds.x, folds.y
    for step in steps_shown(name, plan.steps, progress):
        if position + batch > n:
            order = torch.randperm(n, generator=generator).to(device)
            position, shuffled_x, shuffled_y = 0, folds.x[:, order], folds.y[:, order]
        window = slice(position, position + batch)
        position += batch
        scores = critics(shuffled_x[:, window], shuffled_y[:, window])
        loss = bound.loss(scores, running).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        cosine = 0.5 * (1 + math.cos(math.pi * step / plan.steps))
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * min(1.0, step / 50) * (0.05 + 0.95 * cosine)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, 1 - min(plan.average, step / (step + 10)))
        if step % plan.check == 0 or step == plan.steps:
            held = kept.look(critics, average, bound, folds)
            curve.append((step, float(bound.value(scores.detach()).mean()), float(held.mean())))
            if kept.patience >= plan.patience:
                break
    return _valued(name, critics, kept, folds, np.array(curve))


def untrained(folds: Folds) -> Estimate:
    """What the Gaussian critic alone shows of samples held out [nats]: no training, so no time.

    Where the Gaussian estimate is right this is as high, and below it where it claims too much.
    """
    critics = SeparableCritics(
        folds.x.shape[-1], folds.y.shape[-1], folds.correlations.cpu(), torch.Generator()
    ).to(folds.x.device)
    weights: list[Tensor] = list(critics.parameters())
    _load(weights, [torch.zeros_like(w) for w in weights])
    with torch.no_grad():
        shares = [
            BOUNDS["mine"].shares(critics(*pair))
            for half in zip(folds.held_x, folds.held_y, strict=True)
            for pair in blocks(*half)
        ]
    every = torch.cat(shares, 1).flatten().double()
    return Estimate(float(every.mean()), float(every.std()) / math.sqrt(len(every)))


class _Best:
    """Deep copies of the weights that were best on each held-out half, per fold."""

    def __init__(
        self, critics: SeparableCritics, average: list[Tensor], bound: Bound, folds: Folds
    ) -> None:
        self.weights = ([w.clone() for w in average], [w.clone() for w in average])
        self.since = np.zeros((2, folds.count))
        self.values = self._values(critics, average, bound, folds)

    def _values(
        self, critics: SeparableCritics, average: list[Tensor], bound: Bound, folds: Folds
    ) -> Floats:
        """The bound [halves, folds] of the averaged weights on the first blocks of each half."""
        weights = list(critics.parameters())
        live = [w.detach().clone() for w in weights]
        _load(weights, average)
        with torch.no_grad():
            found = [
                torch.stack([bound.value(critics(*b)) for b in blocks(x, y, LOOK, 2)]).mean(0)
                for x, y in zip(folds.held_x, folds.held_y, strict=True)
            ]
        _load(weights, live)
        return torch.stack(found).double().cpu().numpy()

    def look(
        self, critics: SeparableCritics, average: list[Tensor], bound: Bound, folds: Folds
    ) -> Floats:
        """Keep copies of what has improved; returns the present values [halves, folds]."""
        values = self._values(critics, average, bound, folds)
        better = values > self.values  # False for NaN
        for half, improved in enumerate(better):
            rows = torch.as_tensor(improved)
            for mine, now in zip(self.weights[half], average, strict=True):
                mine[rows] = now[rows]
        self.values = np.where(better, values, self.values)
        self.since = np.where(better, 0, self.since + 1)
        return values

    @property
    def patience(self) -> float:
        """Looks since any fold improved on any half."""
        return float(self.since.min())


def _valued(
    name: str,
    critics: SeparableCritics,
    kept: _Best,
    folds: Folds,
    curve: Floats,
) -> Fitted:
    """The value on the half that did not choose, beside that of the Gaussian critic alone."""
    weights, bound = list(critics.parameters()), BOUNDS[name]
    final, before = [], []
    with torch.no_grad():
        for half in range(2):
            pairs = blocks(folds.held_x[half], folds.held_y[half])
            _load(weights, kept.weights[1 - half])
            final += [bound.shares(critics(*pair)) for pair in pairs]
            _load(weights, [torch.zeros_like(w) for w in weights])
            before += [bound.shares(critics(*pair)) for pair in pairs]
    shares, plain = (torch.cat(parts, 1).flatten().double() for parts in (final, before))
    value, baseline = float(shares.mean()), float(plain.mean())
    if not math.isfinite(value):
        raise DataError(f"The bound {name!r} diverged; leave it out, or pass more samples.")
    error, gain_error = (float(v.std()) / math.sqrt(len(v)) for v in (shares, shares - plain))
    found = Estimate(value, error, baseline, value - baseline, gain_error, curve)
    return Fitted(found, kept.weights)


def _load(weights: Sequence[Tensor], source: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for w, s in zip(weights, source, strict=True):
            w.copy_(s)


def steps_shown(name: str, steps: int, progress: bool) -> Iterator[int]:
    """1 to `steps`, with a progress bar on standard error if wanted."""
    from tqdm import tqdm

    yield from tqdm(range(1, steps + 1), desc=name, unit="step", disable=not progress)
