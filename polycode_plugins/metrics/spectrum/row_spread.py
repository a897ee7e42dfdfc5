"""How much more single rows add to the error of a spectrum's numbers than Gaussian rows would.

To first order the error of log(participation ratio) is the mean over rows x, less their mean, of

    2 (|x|^2 / tr S  -  x' S x / tr S^2),

whose variance Gaussian rows decide by S alone. Where features are sparse (units after a ReLU) or
heavy-tailed and the directions of most variance lean on few of them, it is several times that, and
nothing in the covariance shows it. The rows that `PrioritySample` keeps do: those that add most are
among them for certain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polycode_plugins.metrics.accumulators import Covariance
from polycode_plugins.metrics.spectrum.summaries import trace_powers

if TYPE_CHECKING:
    from polycode_plugins.metrics.spectrum.priority_sample import PrioritySample
    from polycode_plugins.metrics.spectrum.rows.correlation import RowCorrelation

Array = NDArray[np.float64]

SIGNIFICANT = 3.0  # standard errors above 1
CHANCE = 4.0  # squared relative error of what one Gaussian row says, at most


def row_spread(
    covariance: Covariance, eigenvalues: Array, rows: Tensor, counts: Tensor, *, square: float
) -> float:
    """The variance of what rows add over that of Gaussian ones; 1 where it is not evidently more.

    Args:
        covariance: of all rows.
        eigenvalues: [k] of it.
        rows: [kept, width] of them, less their mean.
        counts: [kept] how many each stands for.
        square: samples that one independent sample is worth, where rows are correlated.
    """
    n, width = covariance.n_samples, covariance.width
    effective = n / square
    if not len(rows) or width is None or effective < 2:
        return 1.0
    values = eigenvalues / eigenvalues[0]
    one, two, three, four = trace_powers(values, effective, width)
    if two <= 0:
        return 1.0
    gaussian = 8 * two / one**2 + 8 * four / two**2 - 16 * three / (one * two)
    gaussian += 8 / effective  # what the others' covariance is wrong by, which each row sees
    scaled = rows.double().cpu() / float(eigenvalues[0]) ** 0.5
    image = covariance.multiplier()(scaled.T).T / float(eigenvalues[0])
    norms = scaled.square().sum(dim=1)
    # Less what the row itself, and those that repeat it, have added to the covariance.
    along = (scaled * image).sum(dim=1) - norms.square() / effective
    added = 4 * (norms / one - along / two).square()
    found = float((counts * added).sum()) / n / gaussian
    return evident(found, len(rows), n, effective)


def evident(found: float, kept: int, n: int, effective: float) -> float:
    """A share of variances as it is where it is evidently above 1, else 1.

    kept: rows it was found on, of `n`. effective: independent samples these are worth.
    """
    chance = 1 / effective + (1 / kept if kept < n else 0.0)
    return found if found > 1 + SIGNIFICANT * (CHANCE * chance) ** 0.5 else 1.0


def spread_of_kept(
    covariance: Covariance, sample: PrioritySample, correlation: RowCorrelation
) -> float:
    """`row_spread` by the rows that a sample has kept; 1 for states that kept none.

    correlation: of the rows with one another.
    """
    if sample.n_samples != covariance.n_samples:  # in part of a version that kept no rows
        return 1.0
    values = covariance.eigenvalues().cpu().numpy()
    if not len(values) or values[0] <= 0:
        return 1.0
    kept = sample.kept(covariance.mean())
    square = correlation.mean_square(values)
    return row_spread(covariance, values, kept.rows, kept.counts, square=square)
