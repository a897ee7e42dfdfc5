"""What each sample adds to the errors of a spectrum's numbers, to first order.

A number T of the eigenvalues moves with the weight of a sample x as they do. With unit eigenvectors
u_i and the mean m of the sample covariance, d lambda_i = (u_i . (x - m))^2 - lambda_i (first-order
perturbation; Critchley 1985, Biometrika 72), so that

    influence of x on T  =  sum_i dT/d log lambda_i  ((u_i . (x - m))^2 / lambda_i - 1).

The derivatives of the exponent are those of its fit: of the mean log eigenvalue of each bin, and of
the sum beyond the last rank. Those of the other numbers are of the sample's own: what the
correction for few samples does to them is common to all samples. Since x is among the samples that
u_i comes of, influences are too small where the width is not far below their number; as they are so
for all samples, the correlation of two runs' hardly feels it (`benchmarks/paired_differences.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polycode_plugins.errors import DataError
from polycode_plugins.metrics.accumulators import Covariance
from polycode_plugins.metrics.influences import Influences
from polycode_plugins.metrics.spectrum.law.bins import CELLS, binned
from polycode_plugins.metrics.spectrum.law.matching import match
from polycode_plugins.metrics.spectrum.law.power_law import (
    CORRELATED_CELLS,
    ROUNDING,
    PowerLawFit,
)
from polycode_plugins.metrics.spectrum.rows.correlation import INDEPENDENT, RowCorrelation

if TYPE_CHECKING:
    from polycode_plugins.metrics.spectrum.result import SpectrumResult
    from polycode_plugins.metrics.spectrum.rows.groups import RowGroups

Floats = NDArray[np.float64]

#: Measures of which `dimension_gains` are those of the logarithm.
_LOGARITHMIC = ("participation_ratio", "effective_rank", "stable_rank")


def influences_of(
    result: SpectrumResult, covariance: Covariance, groups: RowGroups, samples: Tensor
) -> Influences:
    """On the exponent and the measures that have an interval; see `Metric.influences`.

    covariance, groups: of all samples of the site. samples: [samples, width], some of them.

    Raises:
        DataError: for samples of another width.
    """
    known = result.intervals()
    with covariance.reading():
        rows = groups.dependence(covariance)
        gains = dimension_gains(above_rounding(result.eigenvalues, result.width))
        if "exponent" in known:
            gain = exponent_gain(result.eigenvalues, result.power_law, rows.correlation)
            if gain is not None:
                gains |= {"exponent": gain, "slope": -gain}
        numbers = {n: one.value or 1.0 for n, one in result.dimensions.named().items()}
        gains = {
            name: gain * numbers[name] if name in _LOGARITHMIC else gain
            for name, gain in gains.items()
            if name in known
        }
        found = influences(covariance, gains, samples)
    return Influences(found, rows.measured and rows.correlation.independent)


def influences(
    covariance: Covariance, gains: Mapping[str, Floats], samples: Tensor
) -> dict[str, Floats]:
    """Influences of samples on functions of the covariance's eigenvalues.

    Args:
        covariance: of all samples of the site.
        gains: [rank] of each function, its derivatives by the log eigenvalues; fewer than there
            are eigenvalues leave the last out.
        samples: [samples, width].

    Returns:
        [samples] of each function, up to a constant.

    Raises:
        DataError: for samples of another width.
    """
    if covariance.width != samples.shape[1]:
        raise DataError(
            f"the samples that were kept have {samples.shape[1]} values and the covariance is of "
            f"{covariance.width}, as with positions='features'; pairing takes positions='samples'"
        )
    if not gains:
        return {}
    values, vectors = covariance.eigenvectors(max(len(gain) for gain in gains.values()))
    held = (samples.to(vectors) - covariance.mean().to(vectors)) @ vectors.T
    squares = (held.square_() / values).cpu().numpy()
    return {name: squares[:, : len(gain)] @ gain for name, gain in gains.items()}


def exponent_gain(
    eigenvalues: Floats, fit: PowerLawFit, rows: RowCorrelation = INDEPENDENT
) -> Floats | None:
    """[rank] derivatives of a corrected exponent by the logs of the eigenvalues.

    None for a published regression, and where the fit is not found again.

    Args:
        eigenvalues: [rank], descending, that the fit was made of.
        fit: the fit. rows: the samples' correlation that it was told of.
    """
    if fit.fit != "debiased":
        return None
    values = above_rounding(eigenvalues, fit.width)
    dof = fit.n_samples - 1
    usable = min(len(values), fit.width, int(dof), rows.ranks(dof, fit.width))
    first, last = fit.ranks
    data = binned(
        values, first, last, usable, cells=CELLS if rows.independent else CORRELATED_CELLS
    )
    try:
        found = match(data, fit.width, dof, fit.exponent, rows)
    except (DataError, np.linalg.LinAlgError):
        return None
    # The last step of the search: weighted least squares of what is missing in each bin.
    noise = np.linalg.inv(found.whitener.T @ found.whitener)
    slopes = np.linalg.solve(found.whitener, found.whitened)
    scaled = slopes / noise.diagonal()[:, None]
    by_bin = np.linalg.solve(scaled.T @ slopes, scaled.T)[1]
    gain = np.zeros(usable)
    for (start, stop), own in zip(pairwise(data.edges), by_bin, strict=False):
        gain[start - 1 : stop - 1] = own / (stop - start)
    if len(by_bin) > len(data.sizes):
        gain[last:] = by_bin[-1] * values[last:usable] / values[last:usable].sum()
    return gain


def dimension_gains(eigenvalues: Floats) -> dict[str, Floats]:
    """{field: [rank]} derivatives of the measures by the logs of the eigenvalues, by the names of
    `EffectiveDimensions`; of the logarithm of those that are counts of directions.

    Ranks by share of the variance have none: they are steps of the sample's eigenvalues.
    """
    p = eigenvalues / eigenvalues.sum()
    squares, roots = np.square(p) / np.square(p).sum(), np.sqrt(p) / np.sqrt(p).sum()
    ratio = 2 * (p - squares)
    largest = np.zeros(len(p))
    largest[0] = 1.0
    return {
        "participation_ratio": ratio,
        "effective_rank": -roots * (np.log(roots) - roots @ np.log(roots)) / 2,
        "stable_rank": p - largest,
        "spectral_entropy": -p * (np.log(p) - p @ np.log(p)),
        "matrix_entropy": ratio / np.log(2),
    }


def above_rounding(eigenvalues: Floats, width: int) -> Floats:
    """[rank] of the eigenvalues that are more than rounding, the largest of them 1."""
    values = eigenvalues / eigenvalues[0]
    return np.asarray(values[values > ROUNDING * width])
