"""Numbers that sum up a covariance spectrum: effective dimensions and explained variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polycode_plugins.errors import DataError

Array = NDArray[np.float64]


def checked_eigenvalues(eigenvalues: ArrayLike) -> Array:
    """Eigenvalues of a covariance as float64 [k], descending; rounding below zero becomes zero.

    Negative values of at most k * 2.2e-16 of the largest are rounding of a symmetric eigensolver in
    float64.

    Raises:
        DataError: for anything that no sample covariance with variance can have as its spectrum.
    """
    try:
        given = np.asarray(eigenvalues)
        if given.dtype == object or np.iscomplexobj(given):
            raise TypeError
        values: Array = given.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError("eigenvalues must be real numbers; pass those of a covariance") from None
    if values.ndim != 1 or values.size == 0:
        raise DataError(
            f"eigenvalues must be one non-empty list and have shape {values.shape}; pass those of "
            "one covariance"
        )
    if not np.isfinite(values).all():
        raise DataError(
            f"{np.sum(~np.isfinite(values))} of {values.size} eigenvalues are NaN or infinite: the "
            "activations hold such values, or overflowed; find them before measuring"
        )
    if np.any(np.diff(values) > 0):
        raise DataError("eigenvalues must be in descending order; sort them and pass them again")
    if values[0] <= 0 and values[-1] == 0:
        raise DataError(
            "all eigenvalues are zero, so the activations are constant; leave the site out"
        )
    if values[-1] < -values.size * np.finfo(np.float64).eps * abs(values[0]):
        raise DataError(
            f"the smallest eigenvalue is {values[-1]:.3g} beside a largest of {values[0]:.3g}, "
            "more than rounding in float64 explains, and a covariance has none below zero; "
            "accumulate and decompose it in float64"
        )
    return np.asarray(np.maximum(values, 0.0))


def checked_samples(n_samples: float, least: int) -> float:
    """The number of samples as a float.

    Raises:
        DataError: below `least`, or if it is no number.
    """
    try:
        n = float(n_samples)
    except (TypeError, ValueError):
        n = float("nan")
    if not np.isfinite(n) or n < least:
        raise DataError(
            f"n_samples is {n_samples!r} and this needs at least {least} samples; give more data"
        )
    return n


@dataclass(frozen=True)
class ParticipationRatio:
    """Number of equal directions that would spread the variance as evenly.

    Attributes:
        corrected: (tr Sigma)^2 / tr Sigma^2 of the population, from estimators of numerator and
            denominator that are unbiased for Gaussian samples; in [1, width].
        naive: (tr S)^2 / tr S^2 of the sample covariance S, which is biased low: roughly
            1/naive = 1/corrected + 1/n_samples.
    """

    corrected: float
    naive: float


def participation_ratio(
    eigenvalues: ArrayLike, n_samples: float, *, width: int | None = None
) -> ParticipationRatio:
    """Participation ratio of a covariance, with and without the correction for few samples.

    With n = n_samples - 1, A = tr S^2 and B = (tr S)^2 of the centred sample covariance (Wishart
    with n degrees of freedom): tr Sigma^2 = n^2 / ((n - 1)(n + 2)) (A - B / n) and
    (tr Sigma)^2 = B - 2 tr Sigma^2 / n, both without bias.

    Args:
        eigenvalues: [k], descending, all that are not zero.
        n_samples: samples the covariance was computed from, or their effective number.
        width: features per sample; bounds the corrected value, which sampling noise can carry
            above it. Default: the number of eigenvalues, or no bound if these are n_samples - 1.

    Raises:
        DataError: for eigenvalues no covariance has, fewer than 3 samples, or (without a width) so
            few that the samples show no correlation at all.
    """
    values = checked_eigenvalues(eigenvalues)
    dof = checked_samples(n_samples, 3) - 1
    values = values / values[0]
    square, total = float(np.sum(values**2)), float(np.sum(values)) ** 2
    naive = total / square
    bound = float("inf") if width is None and len(values) >= dof else float(width or len(values))
    sigma2 = dof**2 / ((dof - 1) * (dof + 2)) * (square - total / dof)
    top = total - 2 * sigma2 / dof
    # A - B/n is zero when the n directions that n samples can have are used evenly.
    if sigma2 * bound <= top or sigma2 <= 0:
        if not np.isfinite(bound):
            raise DataError(
                f"{n_samples} samples show no direction more than another, so that they bound the "
                "participation ratio only from below; give more samples, or pass `width`"
            )
        return ParticipationRatio(bound, naive)
    return ParticipationRatio(max(1.0, top / sigma2), naive)


def effective_rank(eigenvalues: ArrayLike) -> float:
    """RankMe: exp of the entropy [nats] of the normalised singular values, in [1, width].

    The singular values of the data are the square roots of the covariance's eigenvalues (Garrido
    et al. 2023, ICML, equation 1; Roy & Vetterli 2007). A number of the sample: it falls with too
    few samples and no correction is made.

    Raises:
        DataError: for eigenvalues no covariance has.
    """
    singular = np.sqrt(checked_eigenvalues(eigenvalues))
    p = singular / singular.sum()
    p = p[p > 0]
    return float(np.exp(-np.sum(p * np.log(p))))


def spectral_entropy(eigenvalues: ArrayLike) -> float:
    """Entropy [nats] of the eigenvalues divided by their sum, between 0 and ln(width).

    Of the sample, and too low with few samples; `effective_dimensions` corrects it.

    Raises:
        DataError: for eigenvalues no covariance has.
    """
    values = checked_eigenvalues(eigenvalues)
    p = values / values[0]
    p = p[p > 0] / p.sum()
    return float(-np.sum(p * np.log(p)))


def matrix_entropy(eigenvalues: ArrayLike, order: float = 2.0) -> float:
    """Matrix-based entropy [bits] of an order: log2(sum p^order) / (1 - order), p the eigenvalues
    divided by their sum (Giraldo, Rao & Principe 2015, equation 8, for centred rows and the linear
    kernel); of order 1 its limit, the spectral entropy.

    Of the sample, and too low with few samples; `effective_dimensions` corrects those of order 1
    (in nats) and 2.

    Raises:
        DataError: for eigenvalues no covariance has, or an order that is not positive.
    """
    if not order > 0 or not np.isfinite(order):
        raise DataError(f"the order of a matrix-based entropy is above 0, and it is {order!r}")
    if order == 1:
        return spectral_entropy(eigenvalues) / float(np.log(2))
    values = checked_eigenvalues(eigenvalues)
    p = values / values[0]
    p = p[p > 0] / p.sum()
    return float(np.log2(np.sum(p**order)) / (1 - order))


def explained_variance(eigenvalues: ArrayLike) -> Array:
    """[k] share of the total variance in the leading 1, 2, .., k directions; the last is 1.

    Raises:
        DataError: for eigenvalues no covariance has.
    """
    values = checked_eigenvalues(eigenvalues)
    shares = np.cumsum(values / values[0])
    return np.asarray(shares / shares[-1])


def trace_powers(
    eigenvalues: NDArray[np.float64], n: float, width: int
) -> tuple[float, float, float, float]:
    """tr Sigma^k of the population for k = 1 to 4, from those of a sample covariance.

    The second is unbiased, of independent Gaussian rows, and may be negative for a white spectrum;
    the others are so to first order, and no less than the second leaves them.

    n: degrees of freedom of the sample covariance.
    """
    one, second, third, fourth = (float(np.sum(eigenvalues**k)) for k in range(1, 5))
    two = second - one**2 / n
    three = third - 3 * one * two / n - one**3 / n**2
    four = fourth - (4 * one * three + 2 * two**2) / n - 6 * one**2 * two / n**2 - one**4 / n**3
    if two > 0:
        three, four = max(three, two**1.5 / width**0.5), max(four, two**2 / width)
    return one, two, three, four
