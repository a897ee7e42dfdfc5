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

from collections.abc import Sequence
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
    order = torch.from_numpy(np.argsort(groups, kind="stable"))
    parts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    ranges = [slice(parts[g], parts[g + 1]) for g in range(count)]
    codes = [_standard(site[order]) for site in sites]
    sums = [torch.stack([code[r].sum(0) for r in ranges]) for code in codes]
    # Inner products with the sum of each group, those with the own group left out.
    across = torch.stack([(c @ s.T).double() for c, s in zip(codes, sums, strict=True)])
    for g, r in enumerate(ranges):
        across[:, r, g] = 0
    between = torch.stack([across[:, r].sum(1) for r in ranges], dim=1)  # [sites, groups, groups]
    whole = across.sum(2)  # [sites, samples]
    pairs, inside = _products(codes, ranges)
    triples = _triples(across, whole, ranges)

    def unbiased(left_out: int | None) -> Tensor:
        kept = np.delete(np.arange(count), [] if left_out is None else [left_out])
        twos = pairs.sum(0) - (0 if left_out is None else 2 * pairs[left_out])
        threes = triples[0].sum(0) - (0 if left_out is None else triples[1][left_out])
        fours = _quadruples(between[:, kept][:, :, kept])
        n2, n3, n4 = _counts(sizes[kept])
        total = twos / n2 + fours / n4 - 2 * threes / n3
        return (total + total.T) / 2  # rounding apart it is symmetric

    found = unbiased(None)
    values = _normalised(found)
    spread = torch.zeros_like(values)
    total = torch.zeros_like(values)
    for g in range(count):
        apart = _normalised(unbiased(g)) - values
        total += apart
        spread += apart.square()
    variance = (count - 1) / count * (spread - total.square() / count)
    return Alignment(
        values=values.numpy(),
        naive=_normalised(pairs.sum(0) + inside).numpy(),
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


def _products(codes: Sequence[Tensor], ranges: Sequence[slice]) -> tuple[Tensor, Tensor]:
    """Sums of K12 L12, float64: [groups, sites, sites] of each group with all others, and [sites,
    sites] of all groups with themselves.

    All pairs of sites at once: the inner products of two groups are one row of a matrix for each
    site, and that matrix by its own transpose is the answer.
    """
    count = len(codes)
    pairs = torch.zeros(len(ranges), count, count, dtype=torch.float64)
    inside = torch.zeros(count, count, dtype=torch.float64)
    for g, r in enumerate(ranges):
        later = torch.stack([code[r] @ code[r.start :].T for code in codes])
        for h, other in enumerate(ranges[g:], g):
            rows = later[:, :, other.start - r.start : other.stop - r.start].flatten(1)
            found = (rows @ rows.T).double()
            if g == h:
                inside += found
            else:
                pairs[g] += found
                pairs[h] += found
    return pairs, inside


def _triples(across: Tensor, whole: Tensor, ranges: Sequence[slice]) -> tuple[Tensor, Tensor]:
    """Sums of K12 L13 over samples of three groups, float64 [groups, sites, sites] twice: where the
    first sample is of the group, and where any of them is."""
    first, any_of = [], []
    for g, r in enumerate(ranges):
        # Both others in one group, which is no triple, are taken off again.
        flat, u = across[:, r].flatten(1), whole[:, r]
        first.append(u @ u.T - flat @ flat.T)
        column = across[:, :, g]  # 0 for samples of the group itself
        mixed = column @ whole.T
        any_of.append(first[-1] + mixed + mixed.T - 2 * column @ column.T)
    return torch.stack(first), torch.stack(any_of)


def _quadruples(between: Tensor) -> Tensor:
    """Sums of K12 L34 over four groups [sites, sites], of [sites, groups, groups], 0 inside."""
    rows = between.sum(2)
    total, flat = rows.sum(1), between.flatten(1)
    return torch.outer(total, total) - 4 * rows @ rows.T + 2 * flat @ flat.T


def _counts(sizes: Floats) -> tuple[float, float, float]:
    """Pairs, triples and quadruples of samples, in order, of distinct groups."""
    p1, p2, p3, p4 = (float((sizes**k).sum()) for k in (1, 2, 3, 4))
    return (
        p1**2 - p2,
        p1**3 - 3 * p1 * p2 + 2 * p3,
        p1**4 - 6 * p1**2 * p2 + 3 * p2**2 + 8 * p1 * p3 - 6 * p4,
    )


def _normalised(found: Tensor) -> Tensor:
    """|S_xy|^2 [sites, sites] by its diagonal; NaN where a site's own is not above 0."""
    own = found.diagonal()
    own = torch.where(own > 0, own, torch.nan).sqrt()
    return found / torch.outer(own, own)
