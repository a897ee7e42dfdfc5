"""Neurons in another basis: random rotations of what a layer's nonlinearity is given.

A projection of a layer's activations differs from a neuron in two ways: in its basis, and in having
no nonlinearity behind it, which makes it less sparse and less heavy-tailed. A rotated unit differs
in the basis alone. With z the standardised input of the nonlinearity f (mean m and deviation s of
each feature), R a random rotation and r the deviation of R z, unit j is

    f(s_j (R z)_j / r_j + m_j):

the same function at the threshold of neuron j, linear in the layer's input, so it is another weight
matrix and bias of the same layer. Of a gated layer gate and value are rotated by one R.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.units.base import Units
from polycode_plugins.explainers.units.nonlinearities import Nonlinearity
from polycode_plugins.metrics.accumulators import Covariance


@dataclass(frozen=True, eq=False)
class Rotations:
    """Rotated units of one site.

    Attributes:
        layer: the nonlinearity, with the sites of its inputs.
        parts: the units before the nonlinearity, for each of its inputs.
    """

    layer: Nonlinearity
    parts: tuple[Units, ...]

    def read(self, inputs: Sequence[Tensor]) -> Tensor:
        """float32 [..., units]: what the units are, of the layer's inputs [..., width]."""
        return self.layer([p.project(x) for p, x in zip(self.parts, inputs, strict=True)])

    def index(self) -> Units:
        """The units as single features of what `read` gives."""
        n = len(self.parts[0])
        first = self.parts[0]
        zeros = torch.zeros(n)
        return Units(first.kind, first.names, torch.eye(n), zeros, first.origin, torch.arange(n))

    def described(self) -> Units:
        """To be kept with results: of a gated layer, gate and value side by side.

        Offsets of a gated layer are those of the gate; the value's are in `origin`.
        """
        first, *rest = self.parts
        origin = {**first.origin}
        if rest:
            origin["value_offsets"] = rest[0].offsets.tolist()
        matrix = torch.cat([part.directions for part in self.parts], dim=1)
        return Units(first.kind, first.names, matrix, first.offsets, origin)


def rotations(
    layer: Nonlinearity, inputs: Sequence[Covariance], neurons: Units, site: str, *, seed: int = 0
) -> Rotations:
    """One rotated unit for each neuron that is not constant, each of a rotation of its own.

    A row of a random rotation is a direction drawn uniformly; each unit has another draw, so that
    what is said of them is said of random rotations, not of one.

    Args:
        layer: the nonlinearity.
        inputs: mean and covariance of each of its inputs.
        neurons: whose thresholds are taken, by their `index`.
        site: its name, which decides the draw together with `seed`.

    Raises:
        DataError: where every neuron is constant.
    """
    assert neurons.index is not None
    deviations = [of.variances().clamp(min=0).sqrt().cpu() for of in inputs]
    live = torch.stack([s > 0 for s in deviations]).all(dim=0)
    index = neurons.index[live[neurons.index]]
    if not len(index):
        raise DataError(f"every neuron of {site!r} is constant on these texts; give other texts")
    rng = np.random.default_rng([seed, 5, zlib.crc32(site.encode())])
    drawn = torch.from_numpy(rng.normal(size=(len(index), len(live)))) * live
    drawn /= drawn.norm(dim=1, keepdim=True)
    names = tuple(f"rotated {i}" for i in index.tolist())
    origin = {
        "seed": seed,
        "function": layer.function,
        "inputs": list(layer.inputs),
        "pairs": {f"rotated {i}": f"neuron {i}" for i in index.tolist()},
    }
    parts = []
    for of, s in zip(inputs, deviations, strict=True):
        mean = of.mean().cpu()
        rows = drawn / torch.where(live, s, 1.0)
        spread = (rows * of.multiplier()(rows.T.to(of.mean().device)).T.cpu()).sum(dim=1).sqrt()
        rows *= (s[index] / spread)[:, None]
        offsets = rows @ mean - mean[index]
        parts.append(Units("rotated", names, rows.float(), offsets.float(), origin))
    return Rotations(layer, tuple(parts))
