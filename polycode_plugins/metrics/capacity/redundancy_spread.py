"""How much more single rows add to the error of the redundancy than Gaussian rows would.

To first order that error is the mean over rows x, less their mean, of

    (p |x|^2 / tr S  -  x' (S + v I)^-1 x) / (2 log 2)   [bits],

at a noise v, with p the derivative of the redundancy by the log of the total variance (in nats,
twice). `spectrum.row_spread` is that of the participation ratio, in which the first direction
counts most; here all that are read count, and the total.
"""

from __future__ import annotations

from math import log

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.metrics.accumulators import Covariance
from polycode_plugins.metrics.capacity.code_entropy import redundancy_gain, redundancy_pull
from polycode_plugins.metrics.mine.sample_information import Floats
from polycode_plugins.metrics.spectrum.influences import influences
from polycode_plugins.metrics.spectrum.priority_sample import PrioritySample
from polycode_plugins.metrics.spectrum.row_spread import evident


def redundancy_spread(
    covariance: Covariance,
    eigenvalues: Floats,
    noise: float,
    sample: PrioritySample,
    *,
    relative: bool,
    square: float,
) -> float:
    """The variance of what rows add over that of Gaussian ones; 1 where it is not evidently more,
    and for states that kept no rows.

    Args:
        covariance: of all rows.
        eigenvalues: [k] of it, above 0.
        noise: variance in every direction, to which components are read.
        sample: the rows that were kept.
        relative: whether the noise was taken from the total variance.
        square: samples that one independent sample is worth, where rows are correlated.
    """
    n, width = covariance.n_samples, covariance.width or 0
    pull = redundancy_pull(eigenvalues, width, noise, relative=relative)
    gain = redundancy_gain(eigenvalues, noise, pull)
    gaussian = 2 * float(np.square(gain).sum())
    if sample.n_samples != n or gaussian <= 0:
        return 1.0
    kept = sample.kept(covariance.mean())
    if not len(kept.rows):
        return 1.0
    counts = kept.counts.double().cpu()
    added = _added(covariance, kept.rows.double().cpu(), gain, noise, pull)
    mean = float(counts @ added) / float(counts.sum())
    found = float(counts @ (added - mean).square()) / n / gaussian
    return evident(found, len(kept.rows), n, n / square)


def _added(covariance: Covariance, rows: Tensor, gain: Floats, noise: float, pull: float) -> Tensor:
    """[kept] bits that each row adds, up to a constant."""
    if not covariance.keeps_rows or covariance.n_samples > rows.shape[1]:
        matrix = covariance.covariance().cpu()
        total = float(matrix.trace())
        matrix.diagonal().add_(noise)
        root, failed = torch.linalg.cholesky_ex(matrix)
        if not failed:
            read: Tensor = torch.linalg.solve_triangular(root, rows.T, upper=False)
            added = pull / total * rows.square().sum(dim=1) - read.square().sum(dim=0)
            return added / (2 * log(2))
    # Fewer rows than features, or directions that only rounding fills.
    values = rows + covariance.mean().cpu()
    return torch.from_numpy(influences(covariance, {"redundancy": gain}, values)["redundancy"])
