"""Debiased linear CKA between all pairs of sites, from samples that all of them kept.

With the covariances S of two codes x and y, linear CKA (Kornblith et al. 2019) is

    CKA = |S_xy|^2 / (|S_xx| |S_yy|),    |S_xy|^2 = E <x1 - m, x2 - m> <y1 - m', y2 - m'>

for independent samples 1 and 2 (Frobenius norms; m, m' are the means). The sample's own |S_xy|^2
holds pairs of a sample with itself, which make independent codes look alike where samples are not
many times the width. The unbiased estimate of Song et al. 2012 leaves them out (Murphy et al. 2024
for CKA). Tokens of one document resemble each other as a sample resembles itself, so here all
pairs, triples and quadruples of samples are taken from different groups of documents:

    sum_12 K12 L12 / n2  +  sum_1234 K12 L34 / n4  -  2 sum_123 K12 L13 / n3

over distinct groups, with K and L the inner products of both codes and n the number of terms. With
one sample in each group it is Song's estimate. The interval comes from leaving out one group at a
time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polycode_plugins.errors import DataError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

GROUPS = 64  # of documents at most
LEAST = 5  # groups: quadruples of distinct ones must be left when one is taken out
#: Share of the mean square below which a variance is the rounding of float32.
CONSTANT = 1e-12
#: Inner products of samples that are held at a time, of all sites together.
BLOCK = 2**20
#: Groups that the documents must be worth for an interval.
LEAST_FOR_INTERVAL = 10.0


@dataclass(frozen=True)
class Alignment:
    """CKA of all pairs of some sites.

    Attributes:
        values: float64 [sites, sites], debiased; below 0 by chance, above 1 likewise.
        naive: float64 [sites, sites], of the samples as they are.
        errors: float64 [sites, sites], standard error of `values` (delete-a-group jackknife).
        groups: how many groups the documents were dealt into.
        worth: how many groups of equal size these are worth, (sum n)^2 / sum n^2.
        n_samples: samples used.
    """

    values: Floats
    naive: Floats
    errors: Floats
    groups: int
    worth: float
    n_samples: int


def deal(documents: Integers) -> Integers:
    """int64 [samples]: a group for the document of each sample, `GROUPS` at most, of like sizes.

    The largest documents are dealt first, round and back, so that it depends on no order.
    """
    names, of, sizes = np.unique(documents, return_inverse=True, return_counts=True)
    order = np.lexsort((names, -sizes))
    place = np.arange(len(names)) % (2 * GROUPS)
    group = np.empty(len(names), dtype=np.int64)
    group[order] = np.minimum(place, 2 * GROUPS - 1 - place)
    return np.asarray(group[of.reshape(-1)])


def align(sites: Sequence[Tensor], groups: Integers) -> Alignment:
    """CKA between all pairs of sites.

    Args:
        sites: float32 [samples, width] of each; widths may differ.
        groups: int64 [samples], from 0; samples of different ones are independent.

    Raises:
        DataError: for fewer than `LEAST` groups.
    """
    sizes = np.bincount(groups).astype(np.float64)
    count = len(sizes)
    if count < LEAST:
        raise DataError(f"{count} groups of samples are too few; at least {LEAST} are needed")
    # Groups by size: those of one size are worked on together.
    of = np.argsort(np.argsort(sizes, kind="stable"))[groups]
    order, sizes = torch.from_numpy(np.argsort(of, kind="stable")), np.sort(sizes)
    runs = _runs(sizes)
    codes = [_standard(site[order]) for site in sites]
    pairs, inside = _products(codes, runs)
    # Inner products with the sum of each group, those with the own group left out.
    across = torch.stack([(code @ _sums(code, runs).T).double() for code in codes])
    across[:, torch.arange(len(of)), torch.from_numpy(np.sort(of))] = 0  # [sites, samples, groups]
    between = torch.stack([_sums(inner, runs) for inner in across])  # [sites, groups, groups]
    first, any_of = _triples(across, runs)
    fours, fours_left = _quadruples(between)
    n2, n3, n4 = _counts(sizes)

    def unbiased(twos: Tensor, threes: Tensor, fours: Tensor, of: slice | int) -> Tensor:
        total = twos / n2[of] + fours / n4[of] - 2 * threes / n3[of]
        return (total + total.mT) / 2  # rounding apart it is symmetric

    twos, threes = pairs.sum(0), first.sum(0)
    values = _normalised(unbiased(twos, threes, fours, 0))
    # The same with each group left out, [groups, sites, sites].
    left = unbiased(twos - 2 * pairs, threes - any_of, fours_left, slice(1, None))
    apart = _normalised(left) - values
    variance = (count - 1) / count * (apart.square().sum(0) - apart.sum(0).square() / count)
    return Alignment(
        values=values.numpy(),
        naive=_normalised(twos + inside).numpy(),
        errors=variance.clamp_min(0).sqrt().numpy(),
        groups=count,
        worth=float(sizes.sum() ** 2 / np.square(sizes).sum()),
        n_samples=int(sizes.sum()),
    )


def _standard(code: Tensor) -> Tensor:
    """float32, less its mean, of mean squared norm 1: products keep their digits in float32."""
    code = code.double()
    size = float(code.square().sum())
    code = code - code.mean(0)
    varies = float(code.square().sum())
    if not varies > CONSTANT * size:
        return torch.zeros_like(code, dtype=torch.float32)
    return code.mul_((len(code) / varies) ** 0.5).float()


@dataclass(frozen=True)
class Run:
    """Groups of one size that follow each other, and the sample that they begin at."""

    group: int
    start: int
    count: int
    size: int

    @property
    def groups(self) -> slice:
        """Their places among all groups."""
        return slice(self.group, self.group + self.count)

    @property
    def samples(self) -> slice:
        """The places of their samples among all."""
        return slice(self.start, self.start + self.count * self.size)

    def part(self, first: int, last: int) -> Run:
        """Those of the groups from `first` to before `last` that are of the run."""
        first, last = max(first, self.group), min(last, self.group + self.count)
        start = self.start + (first - self.group) * self.size
        return Run(first, start, last - first, self.size)


def _runs(sizes: Floats) -> list[Run]:
    """Of groups in order of their sizes."""
    of_size, first, counts = np.unique(sizes.astype(int), return_index=True, return_counts=True)
    starts = np.cumsum(of_size * counts) - of_size * counts
    return [Run(*map(int, run)) for run in zip(first, starts, counts, of_size, strict=True)]


def _sums(values: Tensor, runs: Sequence[Run]) -> Tensor:
    """[groups, ...] of [samples, ...]."""
    return torch.cat([values[r.samples].view(r.count, r.size, -1).sum(1) for r in runs])


def _products(codes: Sequence[Tensor], runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
    """Sums of K12 L12, float64: [groups, sites, sites] of each group with all others, and [sites,
    sites] of all groups with themselves.

    All pairs of sites at once: the inner products of two groups are one row of a matrix for each
    site, and that matrix by its own transpose is the answer.
    """
    sites, (samples, _), groups = len(codes), codes[0].shape, runs[-1].groups.stop
    pairs = torch.zeros(groups, sites, sites, dtype=torch.float64)
    inside = torch.zeros(sites, sites, dtype=torch.float64)
    names = torch.arange(groups)
    for first in _blocks(runs, sites, samples):
        start = first.start
        inner = torch.empty(sites, first.count * first.size, samples - start)
        for code, out in zip(codes, inner, strict=True):
            torch.mm(code[first.samples], code[start:].T, out=out)
        parts = (run.part(first.group, groups) for run in runs)
        found = torch.cat([_of_cells(inner, first, p) for p in parts if p.count > 0], dim=1)
        one, two = names[first.groups, None], names[first.group :]
        inside += found[one == two].sum(0)
        found.mul_((one < two)[:, :, None, None])
        pairs[first.groups] += found.sum(1)
        pairs[first.group :] += found.sum(0)
    return pairs, inside


def _of_cells(inner: Tensor, first: Run, second: Run) -> Tensor:
    """Products of all pairs of sites, float64 [groups, groups, sites, sites] of two runs, of
    [sites, samples of the first, samples from the first of it on]."""
    start, sites = second.start - first.start, len(inner)
    cells = inner[:, :, start : start + second.count * second.size]
    cells = cells.reshape(sites, first.count, first.size, second.count, second.size)
    rows = cells.permute(1, 3, 0, 2, 4).reshape(first.count * second.count, sites, -1)
    found = torch.bmm(rows, rows.mT).double()
    return found.view(first.count, second.count, sites, sites)


def _blocks(runs: Sequence[Run], sites: int, samples: int) -> Iterator[Run]:
    """Groups whose inner products with all that follow are held at a time."""
    for run in runs:
        group = run.group
        while (rest := run.part(group, run.groups.stop)).count > 0:
            most = BLOCK // (sites * run.size * (samples - rest.start))
            block = run.part(group, group + max(most, 1))
            yield block
            group = block.groups.stop


def _triples(across: Tensor, runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
    """Sums of K12 L13 over samples of three groups, float64 [groups, sites, sites] twice: where the
    first sample is of the group, and where any of them is."""
    whole = across.sum(2)  # [sites, samples]
    # Both others in one group, which is no triple, are taken off again.
    first = torch.cat([_of_groups(whole, r) - _of_groups(across, r) for r in runs])
    columns = across.permute(2, 0, 1).contiguous()  # 0 for samples of the group itself
    mixed = columns @ whole.T
    return first, first + mixed + mixed.mT - 2 * torch.bmm(columns, columns.mT)


def _of_groups(values: Tensor, run: Run) -> Tensor:
    """Products of all pairs of sites [groups, sites, sites], of [sites, samples, ...]."""
    rows = values[:, run.samples].reshape(len(values), run.count, -1).transpose(0, 1)
    return torch.bmm(rows, rows.mT)


def _quadruples(between: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of K12 L34 over four groups, of [sites, groups, groups], symmetric and 0 inside: float64
    [sites, sites], and [groups, sites, sites] with each group left out."""
    rows = between.sum(2).T  # [groups, sites]
    flat = between.flatten(1)
    columns = between.permute(2, 0, 1).contiguous()
    own = torch.bmm(columns, columns.mT)
    mixed = columns @ rows

    def over(total: Tensor, rows: Tensor, cells: Tensor) -> Tensor:
        return total.unsqueeze(-1) * total.unsqueeze(-2) - 4 * rows + 2 * cells

    of_rows, of_cells = rows.T @ rows, flat @ flat.T
    # A row loses its cell in the column of the group, and the row of the group is lost.
    left = of_rows - rows[:, :, None] * rows[:, None] - mixed - mixed.mT + own
    return over(rows.sum(0), of_rows, of_cells), over(
        rows.sum(0) - 2 * rows, left, of_cells - 2 * own
    )


def _counts(sizes: Floats) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs, triples and quadruples of samples, in order, of distinct groups: [1 + groups, 1, 1],
    of all groups and with each left out."""
    powers = (sizes**k for k in (1, 2, 3, 4))
    p1, p2, p3, p4 = (
        torch.from_numpy(np.concatenate([[p.sum()], p.sum() - p])[:, None, None]) for p in powers
    )
    return (
        p1**2 - p2,
        p1**3 - 3 * p1 * p2 + 2 * p3,
        p1**4 - 6 * p1**2 * p2 + 3 * p2**2 + 8 * p1 * p3 - 6 * p4,
    )


def _normalised(found: Tensor) -> Tensor:
    """|S_xy|^2 [..., sites, sites] by its diagonal; NaN where a site's own is not above 0."""
    own = found.diagonal(dim1=-2, dim2=-1)
    own = torch.where(own > 0, own, torch.nan).sqrt()
    return found / (own.unsqueeze(-1) * own.unsqueeze(-2))
