"""The eigenspectrum of what repeats have in common: cvPCA (Stringer et al. 2019).

Where a response carries noise (neurons, dropout left on, sampled inputs) the covariance's spectrum
is that of signal plus noise. With two repeats of the same stimuli the noise is independent between
them, so the variance that both share along the components of one is, without bias, the signal's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polycode_plugins.errors import DataError

Floats = NDArray[np.float64]

MIN_STIMULI = 3
MIN_RANKS = 5


@dataclass(frozen=True, eq=False)
class CrossValidatedSpectrum:
    """Variance of the signal along the principal components of responses.

    Attributes:
        eigenvalues: [k], by rank of the component; squared units of the responses. They estimate
            variances without bias and are not forced to be positive or to descend: far down, where
            the components are noise, they scatter around zero.
        naive: [k] ordinary eigenvalues, of signal and noise together, averaged over repeats.
        n_stimuli, width: shape of either repeat.
        swaps: over how many random exchanges of the repeats the numbers are averaged.
    """

    eigenvalues: Floats
    naive: Floats
    n_stimuli: int
    width: int
    swaps: int

    @property
    def signal_share(self) -> float:
        """Share of the total variance that repeats; its estimate can leave 0..1 by chance."""
        return float(self.eigenvalues.sum() / self.naive.sum())

    def exponent(self, ranks: tuple[int, int] = (11, 500)) -> float:
        """Stringer et al.'s exponent (> 0: decaying): least squares of log eigenvalue on log rank
        with weights 1 / rank.

        ranks: first and last, from 1; the last is cut to what there is.

        Raises:
            DataError: where fewer than 5 ranks are left, or an eigenvalue is not positive, so that
                the noise is larger than the signal there and the range has to end before.
        """
        first, last = ranks[0], min(ranks[1], len(self.eigenvalues))
        if first < 1 or last - first + 1 < MIN_RANKS:
            raise DataError(
                f"ranks {ranks} leave fewer than {MIN_RANKS} of {len(self.eigenvalues)} "
                "eigenvalues; give a wider range"
            )
        values = self.eigenvalues[first - 1 : last]
        if values.min() <= 0:
            rank = first + int(np.argmax(values <= 0))
            raise DataError(
                f"the cross-validated eigenvalue of rank {rank} is not positive: there the signal "
                "is lost in noise; end the ranks before it, or give more stimuli"
            )
        rank_ = np.arange(first, last + 1)
        x, y, weight = np.log(rank_), np.log(values), 1 / rank_
        x = x - np.average(x, weights=weight)
        return float(-np.sum(weight * x * y) / np.sum(weight * x**2))


def cross_validated_spectrum(
    first: ArrayLike, second: ArrayLike, *, swaps: int = 10, seed: int = 0
) -> CrossValidatedSpectrum:
    """Cross-validated eigenvalues from two repeats of the same stimuli.

    Principal components are found in one repeat; the eigenvalue of each is the covariance over
    stimuli of its two projections, of that repeat and of the other (Stringer et al. 2019, Nature
    571, methods, "cvPCA"). As there, the repeats of randomly chosen stimuli are exchanged before
    each of several passes, and the passes averaged.

    Args:
        first: [stimuli, features], one repeat; a torch tensor on the CPU or an array.
        second: the other repeat, of the same stimuli in the same order.
        swaps: passes. 1 takes the repeats as they are.
        seed: of the exchanges.

    Raises:
        DataError: for shapes that differ, fewer than 3 stimuli, values that are not finite, or
            repeats that are constant or the same (noise cannot be told from signal then).
    """
    one, two = _matrix(first, "first"), _matrix(second, "second")
    if one.shape != two.shape:
        raise DataError(
            f"the repeats have shapes {one.shape} and {two.shape}; give the same stimuli and "
            "features in both"
        )
    n, width = one.shape
    if n < MIN_STIMULI:
        raise DataError(f"there are {n} stimuli and cvPCA needs {MIN_STIMULI}; give more")
    if swaps < 1:
        raise DataError(f"swaps must be at least 1 and is {swaps}")
    if np.array_equal(one, two):
        raise DataError(
            "the repeats are the same numbers, so that they hold no noise to tell the signal from; "
            "give two measurements (a deterministic model needs Spectrum, not cvPCA)"
        )
    if np.ptp(one, axis=0).max() == 0 or np.ptp(two, axis=0).max() == 0:
        raise DataError("a repeat is constant over stimuli, so there is no spectrum; leave it out")
    rng = np.random.default_rng(seed)
    rank = min(width, n - 1)
    found, naive = np.zeros(rank), np.zeros(rank)
    for _ in range(swaps):
        exchanged = np.asarray(rng.random(n) < (0.5 if swaps > 1 else 0.0))
        train = np.where(exchanged[:, None], two, one)
        test = np.where(exchanged[:, None], one, two)
        scores, components = _components(train - train.mean(axis=0), rank)
        other = (test - test.mean(axis=0)) @ components
        found += np.einsum("nk,nk->k", scores, other) / (n - 1)
        naive += np.einsum("nk,nk->k", scores, scores) / (n - 1)
    return CrossValidatedSpectrum(found / swaps, naive / swaps, n, width, swaps)


def _matrix(values: Any, which: str) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 2:
        raise DataError(f"the {which} repeat must be [stimuli, features], not {found.shape}")
    if not np.isfinite(found).all():
        raise DataError(f"the {which} repeat holds NaN or infinity; find it before measuring")
    return found


def _components(centred: Floats, rank: int) -> tuple[Floats, Floats]:
    """Scores [n, rank] and components [features, rank], in order of variance."""
    n, width = centred.shape
    if width <= n:
        _, vectors = np.linalg.eigh(centred.T @ centred)
        components = vectors[:, ::-1][:, :rank]
        return centred @ components, components
    values, vectors = np.linalg.eigh(centred @ centred.T)
    scores = vectors[:, ::-1][:, :rank] * np.sqrt(np.maximum(values[::-1][:rank], 0.0))
    lengths = np.sqrt(np.maximum(values[::-1][:rank], values[-1] * np.finfo(np.float64).eps))
    return scores, centred.T @ vectors[:, ::-1][:, :rank] / lengths
