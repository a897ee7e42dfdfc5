"""What groups of samples say about the samples' dependence on one another.

How much the scatter matrices of groups of documents differ, beside what independent Gaussian rows
would show, says how much less than n samples n rows are; the third moment of the differences says
how the correlation is spread. With W_k the scatter of group k in directions in which the whole has
unit variance, and R_k the correlation of its n_k rows,

    E W_k,ij^2 = tr R_k^2,    E W_k,ij W_k,jl W_k,li = tr R_k^3    for different i, j, l,

where rows are correlated alike in all directions. Rows whose norms are heavy-tailed do the same
without any correlation, and so, in a sketch, do features that are zero in most rows. Both show in
groups into which the samples are dealt one by one, beside which documents are judged; the spectrum
is spread by the former and not by the latter, which a sketch cannot tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.metrics.spectrum.correlated_rows import INDEPENDENT, RowCorrelation

SAMPLES_PER_DIRECTION = 20  # the whole must be known well to measure the parts against it
LEAST_GROUPS = 8
SOUND = 1e-9  # of the largest variance; directions with less are rounding
SIGNIFICANT = 3.0  # standard errors


@dataclass(frozen=True)
class RowDependence:
    """How dependent samples are on one another.

    Attributes:
        correlation: between the samples of a document; independent where none was found.
        widest: the same with heavy tails of whole rows; what the spectrum may have been spread by.
        square: tr R^2 / n of documents, None where it could not be measured; error: its standard
            error.
        tails: the same of samples dealt out one by one: above 1 for heavy-tailed or sparse rows.
        groups: groups of documents (at most 64) that had samples.
    """

    correlation: RowCorrelation
    widest: RowCorrelation
    square: float | None
    error: float | None
    tails: float | None
    groups: int

    @property
    def measured(self) -> bool:
        """Whether there were documents and samples enough."""
        return self.square is not None

    def effective(self, n_samples: int) -> float:
        """Independent samples that would spread the spectrum as much as the correlation does."""
        return n_samples / self.correlation.square


@dataclass(frozen=True)
class Moments:
    """tr R^2 / n and tr R^3 / n from some groups.

    error: standard error of `square`, from how much the groups differ. chance: that of independent
    Gaussian rows. bend_error: see `RowCorrelation`.
    """

    square: float
    cube: float
    error: float
    chance: float
    bend_error: float

    def correlation(self) -> RowCorrelation:
        """A correlation with these moments; none where chance gives as much.

        That is judged by the error without correlation: where a few documents hold most of it, the
        error is of its own size.
        """
        if self.square < 1 + SIGNIFICANT * self.chance:
            return INDEPENDENT
        cube = max(self.cube, self.square**2)
        return RowCorrelation(self.square, cube, self.error, min(0.5, self.bend_error))

    def beside(self, single: Moments) -> Moments:
        """What is left of them when single rows show `single`."""
        chance = 2**0.5 * single.error / single.square
        if single.square < 1 + SIGNIFICANT * single.chance:
            return replace(self, chance=max(self.chance, chance))
        square = self.square / single.square
        error = float(np.hypot(self.error / self.square, single.error / single.square)) * square
        return Moments(square, self.cube / max(single.cube, 1.0), error, chance, self.bend_error)


def moments(
    counts: NDArray[np.int64], means: NDArray[Any], scatters: NDArray[Any]
) -> Moments | None:
    """Moments from groups of samples.

    None for fewer than 8 groups, 60 samples or 3 directions, or where one group holds most of them.

    counts: [groups] samples; means: [groups, directions]; scatters: [groups, directions,
    directions] around the group's mean, lower triangle.
    """
    kept = counts > 0
    counts = counts[kept].astype(np.float64)
    n, held = counts.sum(), len(counts)
    size = min(means.shape[1], int(n / SAMPLES_PER_DIRECTION))
    if held < LEAST_GROUPS or size < 3 or counts.max() > n / 2:
        return None
    means = means[kept, :size]
    scatters = np.tril(scatters[kept, :size, :size])
    scatters += np.tril(scatters, -1).swapaxes(1, 2)
    means = means - counts @ means / n
    scatters = scatters + counts[:, None, None] * means[:, :, None] * means[:, None, :]
    spread, vectors = np.linalg.eigh(scatters.sum(axis=0))
    sound = spread > SOUND * spread[-1]
    size = int(sound.sum())
    if spread[-1] <= 0 or size < 3:
        return None
    scale = vectors[:, sound] * np.sqrt(n / spread[sound])
    apart = scale.T @ scatters @ scale
    apart[:, range(size), range(size)] = 0.0
    pairs = size * (size - 1)
    # The whole is known by its sample alone, of which each group is a part.
    squares = np.sum(apart**2, axis=(1, 2)) / pairs * ((n - 1) * (n + 2) / n**2)
    cubes = np.einsum("kij,kjl,kli->k", apart, apart, apart) / (pairs * (size - 2))
    weights = counts * (1 - counts / n)
    cube_weights = weights * (1 - 2 * counts / n)
    square = float(squares.sum() / weights.sum())
    cube = float(cubes.sum() / cube_weights.sum())
    chance = float(np.sqrt(4 / (pairs * held)))
    # Groups that differ more from one another than chance makes them: few or unequal documents.
    without = (squares.sum() - squares) / (weights.sum() - weights)
    cubes_without = (cubes.sum() - cubes) / (cube_weights.sum() - cube_weights)
    bends = (cubes_without - without**2) / np.maximum(without**2 - 1, chance)
    jackknife, bend_error = (np.sqrt((held - 1) * v.var()) for v in (without, bends))
    error = max(chance * square, float(jackknife))
    square, cube = _unwhitened(square, cube, size / n)
    return Moments(square, cube, error, chance, float(bend_error))


def _unwhitened(square: float, cube: float, share: float) -> tuple[float, float]:
    """The moments, corrected for having been measured in units of the sample's own covariance.

    share: directions / samples. To first order in it the moments come out by the factors
    1 + 2 share (m_2 - m_3 / m_2) and 1 + 3 share (m_2 - m_4 / m_3); m_4 is that of a correlation
    whose law H (see `correlated_rows`) has no third order.
    """
    two, three = square, cube
    for _ in range(100):
        four = two**3 + 3 * two * (three - two**2)
        wrong = 1 + 2 * share * (two - three / two), 1 + 3 * share * (two - four / three)
        two, three = square / max(wrong[0], 0.5), cube / max(wrong[1], 0.5)
        if three < two**2:
            return square, cube
    return float(two), float(three)
