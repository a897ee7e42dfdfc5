"""Whether sites agree on a difference, so that their mean says something of each of them."""

from __future__ import annotations

import numpy as np

from polycode_plugins.explainers.comparison.statistics.resampling import (
    BOOTSTRAPS,
    NOTHING,
    Clusters,
    Floats,
    site_moments,
)

#: p-value below which sites are said to disagree.
LEVEL = 0.05


def disagreement(
    first: Clusters, second: Clusters | None, rng: np.random.Generator
) -> float | None:
    """p-value of Cochran's Q, the spread of the sites' differences in their standard errors.

    Its distribution where all sites have one difference is found by drawing units (each with its
    scores at all sites) after the mean of every kind at every site is taken away, since a few units
    have no chi-squared distribution and units that are read at several sites are not independent.

    Args:
        first, second: the units of two kinds; or of pairs their differences, and None.
        rng: draws the units.

    Returns:
        None for fewer than two sites with two units of each kind, or without any spread in one.
    """
    kinds = [first] if second is None else [first, second]
    ones = [np.ones((1, len(kind.totals))) for kind in kinds]
    centre, variance = _differences(kinds, ones)
    usable = np.isfinite(variance[0]) & np.isfinite(centre[0])
    if usable.sum() < 2:
        return None
    size = max(float(np.abs(kind.totals).max()) for kind in kinds)
    if (np.sqrt(variance[0][usable]) <= NOTHING * size).any():
        return None
    level = [_levelled(kind) for kind in kinds]
    drawn, spreads = _differences(level, [kind.draws(BOOTSTRAPS, rng) for kind in kinds])
    null = _q(drawn[:, usable], spreads[:, usable], size)
    null = null[np.isfinite(null)]
    if 2 * len(null) < BOOTSTRAPS:
        return None
    found = _q(centre[:, usable], variance[:, usable], size)[0]
    return float(((null >= found * (1 - 1e-9)).sum() + 1) / (len(null) + 1))


def _differences(kinds: list[Clusters], weights: list[Floats]) -> tuple[Floats, Floats]:
    """The difference at each site and its estimated variance [draws, sites]."""
    centres, variances = np.zeros((2, 1, 1))
    for sign, kind, of in zip((1, -1), kinds, weights, strict=False):
        means, squared = site_moments(kind, of)
        centres, variances = centres + sign * means, variances + squared
    return centres, variances


def _levelled(kind: Clusters) -> Clusters:
    means, _ = site_moments(kind, np.ones((1, len(kind.totals))))
    level = np.where(np.isfinite(means[0]), means[0], 0.0)
    return Clusters(kind.totals - level * kind.counts, kind.counts, kind.strata)


def _q(centres: Floats, variances: Floats, size: float) -> Floats:
    """Cochran's Q of each row; NaN where a site has no standard error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(np.sqrt(variances) > NOTHING * size, 1 / variances, np.nan)
        mean = (weights * centres).sum(axis=1) / weights.sum(axis=1)
        return np.asarray((weights * (centres - mean[:, None]) ** 2).sum(axis=1))
