"""Random directions that are as heavy-tailed and as sparse as neurons are, one for each neuron.

Behind a nonlinearity a sum of many features is nearly Gaussian, so that no dense random direction
is like a neuron. Random sums of few features are, some of them: candidates have 2, 4, 8, .. up to
all features, and of those that match a neuron the one of most features is taken, so that it is as
far from any single neuron as the match allows.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polycode_plugins.explainers.base import LEVELS
from polycode_plugins.explainers.units.base import Units
from polycode_plugins.explainers.units.directions import directions

#: Candidates for each neuron, and at least.
CANDIDATES, FEWEST = 32, 2048
#: How far a pair may differ in log kurtosis and in sparsity.
CALIPER = (0.2, 0.03)
#: Tokens by which units are matched at most.
TOKENS = 2**14
_VALUES_AT_ONCE = 2**22  # 16 MB

Floats = NDArray[np.floating[Any]]


def matches(
    tokens: Tensor, neurons: Units, site: str, *, seed: int = 0, signed: bool = True
) -> Units | None:
    """For each neuron the random direction that matches its kurtosis and sparsity, if one does.

    Every candidate is +-1 standard deviation of each of its features, at random, and is taken once.
    Sparsity is the share of tokens at level 0 of 10, as in `Shape`, with the highest of these
    tokens at 10.

    Args:
        tokens: float32 [tokens, width] of random texts.
        neurons: single features, by `index`.
        site: its name, which decides the draw together with `seed`.
        seed: of the candidates.
        signed: whether a unit is read with the sign whose extreme is larger; else as it is.

    Returns:
        Units whose `origin` says which pair they are of; None where no neuron has a match.
    """
    assert neurons.index is not None
    tokens = tokens[:TOKENS].float()
    deviations = tokens.double().std(dim=0).cpu().numpy()
    rng = np.random.default_rng([seed, 7, zlib.crc32(site.encode())])
    rows = _candidates(deviations, max(FEWEST, CANDIDATES * len(neurons)), rng)
    if not len(rows):
        return None
    theirs = _shapes(neurons.project(tokens), signed)
    step = max(1, _VALUES_AT_ONCE // len(tokens))
    ours = np.concatenate(
        [
            _shapes(tokens @ torch.from_numpy(part).to(tokens), signed)
            for part in (rows[i : i + step].T.astype(np.float32) for i in range(0, len(rows), step))
        ]
    )
    chosen = _pairs(theirs, ours, (rows != 0).sum(axis=1))
    if not chosen:
        return None
    numbers = neurons.index[list(chosen)].tolist()
    names = [f"matched {i}" for i in numbers]
    taken = rows[list(chosen.values())]
    origin = {
        "seed": seed,
        "candidates": len(rows),
        "caliper": list(CALIPER),
        "features": [int(n) for n in (taken != 0).sum(axis=1)],
        "pairs": {f"matched {i}": f"neuron {i}" for i in numbers},
    }
    scaled = taken / np.linalg.norm(taken, axis=1, keepdims=True)
    return directions(scaled, names, kind="matched", origin=origin)


def _candidates(deviations: Floats, n: int, rng: np.random.Generator) -> Floats:
    """[candidates, width]: as many of each number of features, 2, 4, .. and all that vary."""
    live = np.flatnonzero(deviations > 0)
    sizes = [2**i for i in range(1, 64) if 2**i < len(live)] + [len(live)]
    sizes = [size for size in sizes if size >= 2]
    if not sizes:
        return np.empty((0, len(deviations)))
    rows = np.zeros((len(sizes) * -(-n // len(sizes)), len(deviations)), dtype=np.float32)
    for i, row in enumerate(rows):
        features = rng.choice(live, sizes[i % len(sizes)], replace=False)
        row[features] = rng.choice((-1.0, 1.0), len(features)) / deviations[features]
    return rows


def _shapes(values: Tensor, signed: bool) -> Floats:
    """Log kurtosis and sparsity of each column [units, 2]; NaN for a constant one."""
    if signed:
        values = values * torch.where(values.amax(dim=0) >= -values.amin(dim=0), 1.0, -1.0)
    square = (values - values.mean(dim=0)).square_()
    variance = square.mean(dim=0)
    kurtosis = (square / variance).square_().mean(dim=0)
    sparsity = (values * LEVELS < values.amax(dim=0)).float().mean(dim=0)
    return np.asarray(torch.stack([kurtosis.log(), sparsity], dim=1).double().cpu().numpy())


def _pairs(theirs: Floats, ours: Floats, features: NDArray[np.int64]) -> dict[int, int]:
    """{neuron: candidate}: those with the fewest matches choose first."""
    caliper = np.array(CALIPER)
    able = {
        i: np.flatnonzero((np.abs(ours - shape) <= caliper).all(axis=1))
        for i, shape in enumerate(theirs)
    }
    taken: set[int] = set()
    chosen: dict[int, int] = {}
    for i in sorted(able, key=lambda i: len(able[i])):
        left = [c for c in able[i] if c not in taken]
        if left:
            far = np.abs((ours[left] - theirs[i]) / caliper).sum(axis=1)
            best = int(left[int(np.lexsort((far, -features[left]))[0])])
            taken.add(best)
            chosen[i] = best
    return dict(sorted(chosen.items()))
