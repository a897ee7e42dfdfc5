"""A sample spectrum in bins of ranks, and what a population leads one to expect of them.

The logarithms of the eigenvalues are averaged over bins of consecutive ranks, evenly spaced in log
rank; what `sample_spectrum` says at a few ranks of each, its nodes, is interpolated between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.metrics.spectrum.law.levels import Array, Levels
from polycode_plugins.metrics.spectrum.law.sample_spectrum import sample_spectrum
from polycode_plugins.metrics.spectrum.law.start import Start
from polycode_plugins.metrics.spectrum.rows.correlation import RowCorrelation

BINS = 24
OUTER_BINS = 6  # on either side of the ranks
CELLS = 5  # at most so many points per bin at which the expectation is worked out
HEAD = -1  # row of the nodes before the first rank


@dataclass(frozen=True)
class Binned:
    """A sample spectrum in bins of ranks, as logarithms.

    edges: [bins + 1] first rank of each bin, and the rank after the last.
    values: [rows] mean log eigenvalue of each bin; then, if `tail`, the log of the sum beyond.
    tail: whether eigenvalues beyond the last bin were observed.
    nodes, rows: [nodes] a rank and the row it belongs to (HEAD: none).
    begins, cells: [nodes] the first of the ranks that the node stands for, and how many they are.
    logs: [nodes] mean log eigenvalue over these.
    """

    edges: NDArray[np.int64]
    values: Array
    tail: bool
    nodes: NDArray[np.int64]
    rows: NDArray[np.int64]
    begins: NDArray[np.int64]
    cells: Array
    logs: Array

    @cached_property
    def sizes(self) -> Array:
        """[bins] ranks in each bin."""
        return np.diff(self.edges).astype(np.float64)

    @cached_property
    def shares(self) -> Array:
        """[bins, nodes] the share of each bin's ranks that a node stands for."""
        own = self.rows == np.arange(len(self.sizes))[:, None]
        return np.asarray(own * self.cells / self.sizes[:, None])

    @cached_property
    def between(self) -> Array:
        """[ranks, nodes] what interpolates from the nodes to every rank: a cubic spline."""
        from scipy.interpolate import CubicSpline

        order = np.argsort(self.nodes)
        smooth = CubicSpline(self.nodes[order], np.eye(len(order))[order])
        return np.asarray(smooth(np.arange(1, self.end + 1)))

    @property
    def end(self) -> int:
        """The last rank that there is."""
        return int((self.begins + self.cells).max()) - 1

    @property
    def first(self) -> int:
        """First rank of the fit."""
        return int(self.edges[0])

    @property
    def last(self) -> int:
        """Last rank of the fit."""
        return int(self.edges[-1]) - 1


def bin_edges(first: int, last: int, bins: int) -> NDArray[np.int64]:
    """First ranks of at most `bins` bins of even log size that cover first..last, and last + 1."""
    edges = np.round(np.geomspace(first - 0.5, last + 0.5, bins + 1) + 0.5).astype(np.int64)
    return np.unique(edges)


def binned(
    eigenvalues: Array, first: int, last: int, end: int, bins: int = BINS, cells: int = CELLS
) -> Binned:
    """Bin positive, descending eigenvalues; ranks from 1, `last` included, of which `end` exist.

    More than `end` eigenvalues come where the samples count for fewer; the rest is left out. There
    are at most `bins` bins between first and last, and at most `cells` nodes in each.
    """
    edges = bin_edges(first, last, bins)
    logs = np.log(eigenvalues)
    values = [logs[a - 1 : b - 1].mean() for a, b in pairwise(edges)]
    if tail := end > last:
        values.append(np.log(eigenvalues[last:end].sum()))
    parts = [(edges, np.arange(len(edges) - 1))]
    if first > 1:
        parts.append((bin_edges(1, first - 1, OUTER_BINS), np.full(OUTER_BINS, HEAD)))
    if tail:
        parts.append((bin_edges(last + 1, end, OUTER_BINS), np.full(OUTER_BINS, len(edges) - 1)))
    begins, counts, rows = [], [], []
    for cuts, row in parts:
        for a, b, r in zip(cuts[:-1], cuts[1:], row, strict=False):
            inner = np.linspace(a, b, min(b - a, cells) + 1).astype(np.int64)
            begins.append(inner[:-1])
            counts.append(np.diff(inner))
            rows.append(np.full(len(inner) - 1, r))
    begin, cell = np.concatenate(begins), np.concatenate(counts)
    sums = np.concatenate([[0.0], np.cumsum(logs)])
    return Binned(
        edges=edges,
        values=np.array(values),
        tail=tail,
        nodes=begin + (cell - 1) // 2,
        rows=np.concatenate(rows),
        begins=begin,
        cells=cell.astype(np.float64),
        logs=(sums[begin + cell - 1] - sums[begin - 1]) / cell,
    )


@dataclass(frozen=True)
class Expected:
    """What the rows of a binned spectrum should be, and its cells.

    values: [rows]; logs: [nodes] mean log eigenvalue of every cell; response: [rows, width] of
    values to the log population; covariance, doubt: give [rows, rows], of samples and of what is
    not known of the rows' correlation; start: for a similar population.
    """

    values: Array
    logs: Array
    response: Array
    covariance: Callable[[], Array]
    doubt: Callable[[], Array]
    start: Start


def expect(
    data: Binned,
    population: Array,
    dof: float,
    start: Start | None,
    correlation: RowCorrelation,
    grouped: Levels,
) -> Expected:
    """What the rows and nodes of `data` should be.

    Between nodes the ratio sample / population, which is smooth, is interpolated.
    """
    spectrum = sample_spectrum(population, dof, data.nodes, start, correlation, grouped)
    at, end, bins = data.nodes - 1, data.end, len(data.sizes)
    ratio = np.log(spectrum.values / population[at])
    ranks = np.log(population[:end]) + data.between @ ratio
    sums = np.concatenate([[0.0], np.cumsum(ranks)])
    begins, cells = data.begins, data.cells.astype(np.int64)
    logs = (sums[begins + cells - 1] - sums[begins - 1]) / cells
    weights = np.zeros((len(data.values), len(at)))
    weights[:bins] = data.shares
    values = weights @ logs
    own = np.repeat(1 / data.sizes, np.diff(data.edges))
    if data.tail:
        mine = np.flatnonzero(data.rows == bins)
        parts = np.exp(ranks[data.last :])
        values[-1] = np.log(parts.sum())
        parts /= parts.sum()
        weights[-1, mine] = np.add.reduceat(parts, begins[mine] - data.last - 1)
    response = grouped.spread(weights @ spectrum.response)
    response[:, at] -= weights
    inside = np.arange(data.first - 1, data.last)
    response[np.repeat(np.arange(bins), np.diff(data.edges)), inside] += own
    if data.tail:
        response[-1, data.last : end] += parts

    def covariance() -> Array:
        return np.asarray(weights @ spectrum.covariance(data.cells) @ weights.T)

    def doubt() -> Array:
        """Covariance [rows, rows] that comes of what is not known of the rows' correlation."""
        shifts = [weights @ shift for shift in (spectrum.doubts or list)()]
        return sum((np.outer(v, v) for v in shifts), np.zeros((len(values), len(values))))

    return Expected(values, logs, response, covariance, doubt, spectrum.start)
