"""The difference between kinds of units at equal covariates, where there are such units at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.explainers.comparison.statistics.resampling import (
    AT_ONCE,
    Floats,
    bootstrap_weights,
    interval_around,
    strata_of,
)

BOOTSTRAPS = 500
#: Share of either kind that must have units of the other on both sides, in every covariate.
COMMON = 0.25

#: Names, scores and covariates [units, covariates] of the units of one kind at one site.
Observed = tuple[Sequence[str], Floats, Floats]


def overlap(pairs: Sequence[tuple[Observed, Observed]]) -> float:
    """How far two kinds of units share their covariates, in [0, 1].

    The share of a kind's units that lie between the least and the greatest of the other kind in
    each covariate and along the line that parts the two best (Fisher's), at their own site; the
    smaller of the two shares, each a mean over sites. A line fitted to both kinds says something of
    these units; of the others it extrapolates.
    """
    shares = []
    for a, b in pairs:
        first, second = a[2], b[2]
        if not (len(first) and len(second)):
            shares.append((0.0, 0.0))
            continue
        apart = first.mean(axis=0) - second.mean(axis=0)
        within = sum((x - x.mean(axis=0)).T @ (x - x.mean(axis=0)) for x in (first, second))
        line = np.linalg.pinv(np.asarray(within), hermitian=True) @ apart
        first, second = (np.column_stack([x, x @ line]) for x in (first, second))
        shares.append((_inside(first, second), _inside(second, first)))
    return float(np.mean(shares, axis=0).min())


def _inside(one: Floats, other: Floats) -> float:
    slack = 1e-9 * (np.abs(other).max(axis=0) + 1e-300)
    inside = (one >= other.min(axis=0) - slack) & (one <= other.max(axis=0) + slack)
    return float(inside.all(axis=1).mean())


def adjusted(
    pairs: Sequence[tuple[Observed, Observed]], rng: np.random.Generator
) -> tuple[float | None, tuple[float, float] | None]:
    """The coefficient of the kind beside the covariates and one level for each site.

    None where kind and covariates cannot be told apart. What is drawn is a unit with its scores at
    all sites, as a weight, so that all draws are solved at once.
    """
    from scipy.sparse import csr_array

    design, target, owner, present = _stacked(pairs)
    n, k = design.shape
    if n <= k or np.linalg.matrix_rank(design) < k:
        return None, None
    kinds = np.array([design[owner == i, 0].max() for i in range(len(present))])
    weights = np.zeros((BOOTSTRAPS + 1, len(present)))
    weights[0] = 1
    strata = strata_of(present)
    for kind in (0.0, 1.0):
        members = kinds == kind
        weights[1:, members] = bootstrap_weights(strata[members], BOOTSTRAPS, rng)
    # Sums over the rows of each unit come first: there are more rows than memory for their squares.
    to_units = csr_array((np.ones(n), (owner, np.arange(n))), shape=(len(present), n))
    gram = np.stack([weights @ (to_units @ (design[:, i, None] * design)) for i in range(k)], 1)
    right = weights @ (to_units @ (design * target[:, None]))
    solvable = np.linalg.cond(gram) < 1e12
    if not solvable[0] or 2 * solvable.sum() < BOOTSTRAPS:
        return float(np.linalg.lstsq(design, target, rcond=None)[0][0]), None
    gram, weights = gram[solvable], weights[solvable]
    found = np.linalg.solve(gram, right[solvable][:, :, None])[:, :, 0]
    # What each unit moves the coefficient by; its sum of squares is the variance.
    lever = np.linalg.solve(gram, np.broadcast_to(np.eye(k)[:, :1], (len(gram), k, 1)))[:, :, 0]
    variances = np.zeros(len(found))
    step = max(1, AT_ONCE // n)
    for at in (slice(start, start + step) for start in range(0, len(found), step)):
        moved = (design @ lever[at].T) * (target[:, None] - design @ found[at].T)
        variances[at] = (weights[at] * (to_units @ moved).T ** 2).sum(axis=1)
    value = float(found[0, 0])
    size = float(np.abs(target).max())
    return value, interval_around(value, float(variances[0]), found[1:, 0], variances[1:], size)


def _stacked(
    pairs: Sequence[tuple[Observed, Observed]],
) -> tuple[Floats, Floats, NDArray[np.int64], NDArray[np.bool_]]:
    """The rows of the regression, its target, the unit of each row, and the sites of each unit."""
    rows, targets, owner = [], [], []
    numbers: dict[tuple[int, str], int] = {}
    seen: list[NDArray[np.bool_]] = []
    for i, pair in enumerate(pairs):
        for kind, (names, scores, covariates) in enumerate(pair):
            level = np.zeros((len(scores), len(pairs)))
            level[:, i] = 1
            rows.append(np.column_stack([np.full(len(scores), 1.0 - kind), covariates, level]))
            targets.append(scores)
            for name in names:
                number = numbers.setdefault((kind, name), len(numbers))
                if number == len(seen):
                    seen.append(np.zeros(len(pairs), dtype=bool))
                seen[number][i] = True
                owner.append(number)
    return (
        np.concatenate(rows),
        np.concatenate(targets),
        np.array(owner, dtype=np.int64),
        np.array(seen, dtype=bool).reshape(len(seen), len(pairs)),
    )
