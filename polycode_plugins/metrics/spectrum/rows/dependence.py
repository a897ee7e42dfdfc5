"""What groups of samples say about the samples' dependence on one another.

How much the scatter matrices of groups of documents differ, beside what independent Gaussian rows
would show, says how much less than n samples n rows are. With W_k the scatter of group k in
directions in which the whole has unit variance, S_k the sum of its rows, and R_i the correlation of
its n_k rows in direction i,

    E W_k,ij^2 = tr R_i R_j,    E W_k,ij W_k,jl W_k,li = tr R_i R_j R_l,    E S_k,i^2 = 1' R_i 1

for different i, j, l. They are measured in blocks of directions, by rank, and a correlation that
changes with rank is fitted to them (see `correlation`). Rows whose norms are heavy-tailed do
the same without any correlation, and so, in a sketch, do features that are zero in most rows. Both
show in groups into which the samples are dealt one by one, beside which documents are judged; the
spectrum is spread by the former and not by the latter, which a sketch cannot tell apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.metrics.spectrum.rows.correlation import GROUPS, INDEPENDENT, RowCorrelation

Array = NDArray[np.float64]
#: From directions of the sketch [sketch, k]: ranks [k or 1, nodes] of the population and their
#: weights [k, nodes].
Ranks = Callable[[Array], tuple[Array, Array]]

SAMPLES_PER_DIRECTION = 20  # the whole must be known well to measure the parts against it
LEAST_GROUPS = 8
SOUND = 1e-9  # of the largest variance; directions with less are rounding
SIGNIFICANT = 3.0  # standard errors, over all directions
SIGNIFICANT_BLOCK = 4.5  # in one of the blocks, whose distributions have longer tails
TESTED_GROUPS = 24  # of documents, below which no power law is refuted
BLOCKS = 5
BLOCK_DIRECTIONS = 5  # at least so many make a block
GRID = 20  # ranks at which a block's correlation is averaged


@dataclass(frozen=True)
class RowDependence:
    """How dependent samples are on one another.

    Attributes:
        correlation: between the samples of a document; independent where none was found.
        widest: the same with heavy tails of whole rows; what the spectrum may have been spread by.
        square: tr R^2 / n of documents, over all directions; None where it could not be measured.
            error: its standard error.
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

    def untested(self, n_samples: int) -> str | None:
        """Why the samples cannot tell one power law from another spectrum; None if they can.

        Samples of one document each are independent, however few they are.
        """
        if self.groups >= TESTED_GROUPS or n_samples < 2 * self.groups:
            return None
        if self.measured and self.correlation.independent:
            return None
        return (
            f"{n_samples} samples of too few documents, about {self.groups}, cannot tell how "
            "dependent they are on one another; give more documents"
        )


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of samples in directions of unit variance, which either half has from the other.

    counts: [groups] samples. rest: [groups] share of the samples of the half that are in others of
    its groups. apart: [groups, k, k] scatter matrices with zeros for diagonals, less what the rest
    of the half leads one to expect. sums: [groups, k]. directions: [2, sketch, k] of the halves.
    """

    counts: Array
    rest: Array
    apart: Array
    sums: Array
    directions: Array


def divided(
    counts: NDArray[np.int64], means: NDArray[Any], scatters: NDArray[Any]
) -> Groups | None:
    """Groups of samples in the principal directions of the other half of them, strongest first.

    In directions of its own a half's noise, which dependence makes, would be sorted to the front.

    None for fewer than 8 groups, 60 samples or 3 directions, or where one group holds most of them.

    counts: [groups] samples; means: [groups, directions]; scatters: [groups, directions,
    directions] around the group's mean, lower triangle.
    """
    kept = counts > 0
    held = counts[kept].astype(np.float64)
    n = held.sum()
    size = min(means.shape[1], int(n / SAMPLES_PER_DIRECTION))
    if len(held) < LEAST_GROUPS or size < 3 or held.max() > n / 2:
        return None
    # Groups of every size go to both halves.
    order = np.argsort(-held, kind="stable")
    held, means, scatters = held[order], means[kept, :size][order], scatters[kept, :size, :size]
    scatters = np.tril(scatters[order])
    scatters += np.tril(scatters, -1).swapaxes(1, 2)
    halves = [slice(0, None, 2), slice(1, None, 2)]
    found = []
    for half in halves:
        own, mean = held[half], means[half]
        mean = mean - own @ mean / own.sum()
        found.append(scatters[half] + own[:, None, None] * mean[:, :, None] * mean[:, None, :])
    bases = []
    for whole in (found[1].sum(axis=0), found[0].sum(axis=0)):
        spread, vectors = np.linalg.eigh(whole)
        if spread[-1] <= 0:
            return None
        bases.append(vectors[:, spread > SOUND * spread[-1]][:, ::-1])
    size = min(basis.shape[1] for basis in bases)
    if size < 3:
        return None
    rest, apart, sums, directions = [], [], [], []
    for half, scatter, basis in zip(halves, found, bases, strict=True):
        own, whole = held[half], scatter.sum(axis=0)
        basis = basis[:, :size]
        variance = np.einsum("ik,ij,jk->k", basis, whole, basis) / own.sum()
        if variance.min() <= 0:
            return None
        basis = basis / np.sqrt(variance)
        turned = basis.T @ scatter @ basis
        others = own.sum() - own
        turned -= (own / others)[:, None, None] * (turned.sum(axis=0) - turned)
        turned[:, range(size), range(size)] = 0.0
        mean = means[half] - own @ means[half] / own.sum()
        rest.append(others / own.sum())
        apart.append(turned)
        sums.append(own[:, None] * (mean @ basis))
        directions.append(basis)
    return Groups(
        np.concatenate([held[half] for half in halves]),
        np.concatenate(rest),
        np.concatenate(apart),
        np.concatenate(sums),
        np.stack(directions),
    )


@dataclass(frozen=True, eq=False)
class Moments:
    """Averages over blocks of directions, and what they are without each group of samples.

    values: [blocks (blocks + 1) / 2 + blocks + 1] tr R_A R_B / n for the pairs of blocks, 1' R_A 1
    / n, and tr R^3 / n over all. without: [groups, ..]. chance: [..] standard errors for
    independent Gaussian rows. square: tr R^2 / n over all; error: its standard error.
    """

    values: Array
    without: Array
    chance: Array
    square: float
    cube: float
    error: float
    square_chance: float
    blocks: int

    @property
    def errors(self) -> Array:
        """[..] standard errors: by the jackknife, and not below what chance makes them."""
        return np.maximum(np.sqrt(np.diag(self.covariance)), self.chance)

    @property
    def covariance(self) -> Array:
        """[.., ..] of the values, by the jackknife over groups."""
        off = self.without - self.without.mean(axis=0)
        return np.asarray(off.T @ off * (len(off) - 1) / len(off))


def moments(groups: Groups, blocks: list[NDArray[np.int64]]) -> Moments:
    """Moments of the rows' correlation in blocks of directions."""
    counts, apart, rest = groups.counts, groups.apart, groups.rest
    held, size = len(counts), groups.directions.shape[2]
    member = np.zeros((len(blocks), size))
    for row, block in enumerate(blocks):
        member[row, block] = 1.0
    first, second = np.triu_indices(len(blocks))
    pairs = (member @ (1 - np.eye(size)) @ member.T)[first, second]
    squares = (member @ apart**2 @ member.T)[:, first, second] / pairs * rest[:, None]
    every = np.sum(apart**2, axis=(1, 2)) / (size * (size - 1)) * rest
    triples = size * (size - 1) * (size - 2)
    cubes = np.einsum("kij,kjl,kli->k", apart, apart, apart, optimize=True) / triples
    sums = groups.sums**2 @ member.T / member.sum(axis=1)
    some = np.repeat((counts * rest)[:, None], sums.shape[1], axis=1)
    parts = np.column_stack([squares, sums, cubes, every])
    scales = np.column_stack(
        [
            np.repeat(counts[:, None], squares.shape[1], axis=1),
            some,
            counts * (1 - ((1 - rest) / rest) ** 2),
            counts,
        ]
    )
    half = float((counts * rest).sum() / 2)  # samples beside which those of a group were judged
    totals, sizes = parts.sum(axis=0), scales.sum(axis=0)
    values = _unbiased(totals / sizes, first, second, half)
    # Groups that differ more from one another than chance makes them: few or unequal documents.
    without = _unbiased((totals - parts) / (sizes - scales), first, second, half)
    distinct = np.where(first == second, 4.0, 2.0)
    chance = np.sqrt(distinct / (pairs * held))
    spread = np.sqrt(2 / (member.sum(axis=1) * held))
    square_chance = float(np.sqrt(4 / (size * (size - 1) * held)))
    third = np.sqrt(6 / (triples * held) + 9 * square_chance**2)
    jackknife = float(np.sqrt((held - 1) * without[:, -1].var()))
    return Moments(
        values=values[:-1],
        without=without[:, :-1],
        chance=np.concatenate([chance, spread, [third]]),
        square=float(values[-1]),
        cube=float(values[-2]),
        error=max(square_chance * float(values[-1]), jackknife),
        square_chance=square_chance,
        blocks=len(blocks),
    )


def _unbiased(
    values: Array, first: NDArray[np.int64], second: NDArray[np.int64], samples: float
) -> Array:
    """Moments [.., values] as they would be around the true mean and in true units of variance.

    To first order in 1 / samples. The mean that was taken off holds a part of every document, and
    the variances that were divided by are those of the same samples.
    """
    pairs = len(first)
    sums = values[..., pairs:-2]
    mean = sums.mean(axis=-1)
    square, cube = values[..., -1], values[..., -2]
    cube = cube + 3 * mean**3 / samples
    square = square + 2 * mean**2 / samples
    around = 1 + 4 * (square - cube / square) / samples
    unit = 1 - sums / samples
    both = values[..., :pairs] + 2 * sums[..., first] * sums[..., second] / samples
    both = both * unit[..., first] * unit[..., second] / np.maximum(around, 0.5)[..., None]
    square = square * unit.mean(axis=-1) ** 2 / np.maximum(around, 0.5)
    cube = cube * unit.mean(axis=-1) ** 3 / np.maximum(around, 0.5) ** 1.5
    last = np.stack([cube, square], axis=-1)
    return np.concatenate([both, sums * unit, last], axis=-1)


def dependence(documents: Groups, singles: Groups | None, ranks: Ranks | None) -> RowDependence:
    """What groups of documents say, beside groups of single samples.

    ranks: tells where a direction of the sketch lies; without it the correlation is taken to be
    alike in all directions.
    """
    size = documents.directions.shape[2]
    count = max(1, min(BLOCKS, size // BLOCK_DIRECTIONS)) if ranks is not None else 1
    blocks = np.array_split(np.arange(size), count)
    found = moments(documents, blocks)
    single = None if singles is None else moments(singles, blocks)
    tails, tails_cube = 1.0, 1.0
    if single is not None and single.square >= 1 + SIGNIFICANT * single.square_chance:
        tails, tails_cube = single.square, max(single.cube, single.square**2)
    told = found if single is None else _beside(found, single, tails, tails_cube)
    correlation = INDEPENDENT
    if _significant(told, found, single):
        from polycode_plugins.metrics.spectrum.rows.fit import fitted

        places = None if ranks is None else _places(documents, blocks, ranks)
        correlation = fitted(told, places, _length(documents.counts))
    widest = correlation
    if tails > 1:
        widest = RowCorrelation.from_moments(
            found.square,
            float(np.clip(found.cube, found.square**2, (3 * found.square**2 - 1) / 2)),
            found.error,
        )
    return RowDependence(
        correlation=correlation,
        widest=widest,
        square=found.square,
        error=found.error,
        tails=None if single is None else single.square,
        groups=len(documents.counts),
    )


def _beside(found: Moments, single: Moments, tails: float, tails_cube: float) -> Moments:
    """What is left when single rows show heavy tails: independent norms add to the moments.

    The rows of large norm add the same to both, so that the difference is known better than either:
    its error is what documents scatter more than single rows do, or chance with such norms.
    """
    if tails == 1:
        return replace(
            found, square_chance=max(found.square_chance, 2**0.5 * single.error / single.square)
        )
    pairs = found.blocks * (found.blocks + 1) // 2
    surplus = np.zeros(len(found.values))
    surplus[:pairs] = single.values[:pairs] - 1
    square = found.square - tails + 1
    # tr (D R)^3 / n for free D and R with means 1.
    surplus[-1] = 3 * square * (tails - 1) + tails_cube - 3 * tails + 2
    spread = 2**0.5 * tails**2  # of what chance does with such norms
    chance = found.chance * spread
    own = np.sqrt(np.maximum(found.errors**2 - single.errors**2, chance**2))
    values = found.values - surplus
    without = values + (found.without - found.values) * np.minimum(1.0, own / found.errors)
    return replace(
        found,
        values=values,
        without=without,
        chance=chance,
        square=square,
        cube=found.cube - surplus[-1],
        error=max(
            found.square_chance * spread,
            float(np.sqrt(max(0.0, found.error**2 - single.error**2))),
        ),
        square_chance=found.square_chance * spread,
    )


def _places(groups: Groups, blocks: list[NDArray[np.int64]], ranks: Ranks) -> tuple[Array, Array]:
    """Ranks [grid], and what share of each block's variance is there, [blocks, grid]."""
    at, weights = ranks(np.concatenate(list(groups.directions), axis=1))
    grid = np.geomspace(1.0, max(at.max(), 1 + 1e-9), GRID)
    # Each node is shared between the two ranks of the grid around it.
    place = np.clip(np.interp(np.log(at), np.log(grid), np.arange(GRID)), 0, GRID - 1)
    low = np.minimum(place.astype(np.int64), GRID - 2)
    slot = low + GRID * np.arange(len(weights))[:, None]
    held = np.zeros(GRID * len(weights))
    for k, share in enumerate((weights * (low + 1 - place), weights * (place - low))):
        held += np.bincount((slot + k).ravel(), share.ravel(), len(held))
    halves = held.reshape(2, -1, GRID).mean(axis=0)
    return grid, np.stack([halves[block].mean(axis=0) for block in blocks])


def _significant(told: Moments, found: Moments, single: Moments | None) -> bool:
    """Whether the moments are more than chance gives, over all or in some block of directions.

    That is judged by the error without correlation: where a few documents hold most of it, the
    error is of its own size. What single rows show as well is none, be it ever so little.
    """
    first, second = np.triu_indices(told.blocks)
    own = np.flatnonzero(first == second)
    above = (told.values[own] - 1) / told.chance[own]
    over_all = (told.square - 1) / told.square_chance
    if single is not None:
        more = (found.values - np.maximum(single.values, 1.0))[own] / told.chance[own]
        above = np.minimum(above, more)
        over_all = min(over_all, (found.square - max(single.square, 1.0)) / told.square_chance)
    return bool(over_all >= SIGNIFICANT or above.max() >= SIGNIFICANT_BLOCK)


def _length(counts: Array) -> float:
    """Samples of a document, weighted by their number, from how unevenly the groups are filled."""
    n = counts.sum()
    surplus = np.sum(counts**2) - n**2 / GROUPS
    return float(max(1.0, surplus / n * GROUPS / (GROUPS - 1)))
