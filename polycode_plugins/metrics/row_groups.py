"""How many independent samples a stream of correlated ones is worth, measured while it passes.

The tokens of a text are correlated, those of different documents are not. So documents are dealt
into groups, and a sketch of the activations, their projection to a few random directions, gets a
mean and a scatter matrix for each group. How much the groups' scatter matrices differ, beside what
independent Gaussian rows would show, says how much less than n samples n rows are; the third
moment of the differences says how the correlation is spread. With W_k the scatter of group k in
directions in which the whole has unit variance, and R_k the correlation of its n_k rows,

    E W_k,ij^2 = tr R_k^2,    E W_k,ij W_k,jl W_k,li = tr R_k^3    for different i, j, l,

where rows are correlated alike in all directions. Rows whose norms are heavy-tailed do the same
without any correlation, and so, in a sketch, do features that are zero in most rows. Both show in
groups into which the samples are dealt one by one, beside which documents are judged; the spectrum
is spread by the former and not by the latter, which a sketch cannot tell apart. The sketch costs
about 2 * SKETCH / width of the covariance's update, and half a megabyte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.activations import Activations, Positions
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics.base import Accumulator
from polycode_plugins.metrics.correlated_rows import INDEPENDENT, RowCorrelation

SKETCH = 32  # directions
GROUPS = 64
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
class _Moments:
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

    def beside(self, single: _Moments) -> _Moments:
        """What is left of them when single rows show `single`."""
        chance = 2**0.5 * single.error / single.square
        if single.square < 1 + SIGNIFICANT * single.chance:
            return replace(self, chance=max(self.chance, chance))
        square = self.square / single.square
        error = float(np.hypot(self.error / self.square, single.error / single.square)) * square
        return _Moments(square, self.cube / max(single.cube, 1.0), error, chance, self.bend_error)


class RowGroups(Accumulator):
    """Means and scatter matrices of a sketch of the activations, by groups of documents.

    A sample belongs to its document (`Activations.documents`), else to its row, which then is a
    document. Rows without a number are known by their first values.

    Args:
        positions: whether positions are "samples" or "features", as for `Covariance`.
    """

    name = "row-groups"

    def __init__(self, positions: Positions = "samples") -> None:
        self.positions = positions
        self._basis: Tensor | None = None  # [width, sketch]
        # First the groups of documents, then those of single samples.
        self._counts = torch.zeros(2 * GROUPS, dtype=torch.int64)
        self._means = torch.zeros(2 * GROUPS, 0, dtype=torch.float64)
        self._scatters = torch.zeros(2 * GROUPS, 0, 0, dtype=torch.float64)
        self._width: int | None = None

    def options(self) -> dict[str, Any]:
        """The settings that define the statistic."""
        return {"positions": self.positions}

    @property
    def n_samples(self) -> int:
        """Samples taken in so far."""
        return int(self._counts[:GROUPS].sum())

    def update(self, activations: Activations) -> None:
        """Take in one batch [.., features]; masked samples are left out."""
        rows = activations.matrix(self.positions).detach()
        if rows.shape[0] == 0:
            return
        self._begin(rows.shape[1])
        if self._basis is None or self._basis.device != rows.device:
            self._basis = _basis(rows.shape[1]).to(rows.device)
        values = (rows.double() @ self._basis).cpu()
        for groups in _groups(activations, self.positions):
            order = groups.argsort(stable=True)
            counts = torch.bincount(groups, minlength=2 * GROUPS)
            ends = counts.cumsum(0).tolist()
            for group in counts.nonzero().flatten().tolist():
                count = int(counts[group])
                part = values[order[ends[group] - count : ends[group]]]
                mean = part.mean(dim=0)
                centred = part - mean
                self._add(group, count, mean, centred.T @ centred)

    def merge(self, other: Self) -> None:
        """Take in everything `other` has seen."""
        if other.key() != self.key():
            raise StateError(f"{other.key()} cannot be merged into {self.key()}")
        if other._width is None:
            return
        self._begin(other._width)
        for group in other._counts.nonzero().flatten().tolist():
            self._add(group, int(other._counts[group]), other._means[group], other._scatters[group])

    def dependence(self) -> RowDependence:
        """What the groups say; measured with at least 8 groups and 60 samples."""
        groups = int((self._counts[:GROUPS] > 0).sum())
        documents, single = self._measure(0), self._measure(1)
        if documents is None or single is None:
            return RowDependence(INDEPENDENT, INDEPENDENT, None, None, None, groups)
        return RowDependence(
            correlation=documents.beside(single).correlation(),
            widest=documents.correlation(),
            square=documents.square,
            error=documents.error,
            tails=single.square,
            groups=groups,
        )

    def _measure(self, dealing: int) -> _Moments | None:
        """Moments of one dealing into groups; None where there are too few of them."""
        block = slice(dealing * GROUPS, (dealing + 1) * GROUPS)
        kept = (self._counts[block] > 0).numpy()
        counts = self._counts[block].numpy()[kept].astype(np.float64)
        n, held = counts.sum(), len(counts)
        size = min(self._means.shape[1], int(n / SAMPLES_PER_DIRECTION))
        if held < LEAST_GROUPS or size < 3:
            return None
        means = self._means[block].numpy()[kept, :size]
        scatters = np.tril(self._scatters[block].numpy()[kept, :size, :size])
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
        cube = float(cubes.sum() / cube_weights.sum()) if cube_weights.sum() > 0 else square**2
        chance = float(np.sqrt(4 / (pairs * held)))
        # Groups that differ more from one another than chance makes them: few or unequal documents.
        without = (squares.sum() - squares) / (weights.sum() - weights)
        cubes_without = (cubes.sum() - cubes) / (cube_weights.sum() - cube_weights)
        bends = (cubes_without - without**2) / np.maximum(without**2 - 1, chance)
        jackknife, bend_error = (np.sqrt((held - 1) * v.var()) for v in (without, bends))
        error = max(chance * square, float(jackknife))
        square, cube = _unwhitened(square, cube, size / n)
        return _Moments(square, cube, error, chance, float(bend_error))

    def state(self) -> dict[str, Tensor]:
        """Counts of all groups; means and scatter matrices of those that have samples."""
        state = {"counts": self._counts.clone()}
        if self._width is not None:
            kept = self._counts > 0
            lower = torch.tril_indices(*self._scatters.shape[1:])
            state["means"] = self._means[kept]
            state["scatters"] = self._scatters[kept][:, lower[0], lower[1]]
            state["width"] = torch.tensor(self._width)
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace what has been seen by `state`."""
        fresh = self.fresh()
        try:
            counts = state["counts"].clone()
            if counts.shape != (2 * GROUPS,):
                raise StateError(f"the saved row groups are not {2 * GROUPS} groups")
            if "width" in state:
                fresh._begin(int(state["width"]))
                lower = torch.tril_indices(*fresh._scatters.shape[1:])
                kept = counts.nonzero().flatten()
                fresh._means[kept] = state["means"].double()
                packed = state["scatters"].double()
                fresh._scatters[kept[:, None], lower[0], lower[1]] = packed
                fresh._scatters[kept[:, None], lower[1], lower[0]] = packed
            elif bool(counts.any()):
                raise StateError("the saved row groups count samples and have no width")
            fresh._counts = counts
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise StateError(f"the saved row groups are damaged: {error}") from error
        self.__dict__.update(fresh.__dict__)

    def _begin(self, width: int) -> None:
        if self._width is None:
            size = min(SKETCH, width)
            self._width = width
            self._means = torch.zeros(2 * GROUPS, size, dtype=torch.float64)
            self._scatters = torch.zeros(2 * GROUPS, size, size, dtype=torch.float64)
        elif self._width != width:
            raise DataError(
                f"activations of width {width} follow ones of width {self._width}; a site must "
                "keep its width (inputs of one size, or positions='samples')"
            )

    def _add(self, group: int, count: int, mean: Tensor, scatter: Tensor) -> None:
        """Chan's merge of one group's moments."""
        before = int(self._counts[group])
        total = before + count
        delta = mean - self._means[group]
        self._scatters[group] += scatter
        self._scatters[group].addr_(delta, delta, alpha=before * count / total)
        self._means[group] += delta * (count / total)
        self._counts[group] = total


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


def _basis(width: int) -> Tensor:
    """[width, sketch] the same for every accumulator of a width; all directions where few."""
    if width <= SKETCH:
        return torch.eye(width, dtype=torch.float64)
    drawn = np.random.default_rng(width).standard_normal((SKETCH, width)) / np.sqrt(width)
    return torch.from_numpy(drawn).T.contiguous()


def _groups(activations: Activations, positions: Positions) -> tuple[Tensor, Tensor]:
    """int64 [samples] twice, on the CPU: the group by document and by sample of every line of
    `matrix(positions)`."""
    size = activations.values.shape[0]
    rows = activations.rows
    if rows is None:
        rows = _content(activations.values.detach().reshape(size, -1)[:, :64])
    rows = rows.cpu().to(torch.int64)
    names = rows if activations.documents is None else activations.documents.cpu().to(torch.int64)
    mask = activations.mask
    if positions == "samples":
        of = activations.sample_rows().cpu().contiguous()
    else:
        whole = torch.ones(size, dtype=torch.bool) if mask is None else mask.cpu()
        of = whole.reshape(size, -1).all(dim=1).nonzero().flatten()
    first = torch.searchsorted(of, of)
    place = torch.arange(len(of)) - first
    # A row with one sample is dealt alike both ways, so that it cannot seem correlated.
    single = _mix(rows[of] + place * 0x1F123BB5159A55E5)
    return _mix(names)[of], GROUPS + single


def _content(values: Tensor) -> Tensor:
    """int64 [rows]: equal for equal rows."""
    bits = values.cpu().float().contiguous().view(torch.int32).to(torch.int64)
    odd = torch.arange(1, 2 * bits.shape[1], 2, dtype=torch.int64) * 0x9E3779B1
    return (_mix(bits + odd, 2**31)).sum(dim=1)


def _mix(names: Tensor, size: int = GROUPS) -> Tensor:
    """Spread integers evenly over `size` values: Steele, Lea & Flood's SplitMix, low bits."""
    found = names
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        found = (found ^ (found >> shift)) * factor
    return (found ^ (found >> 31)) % size
