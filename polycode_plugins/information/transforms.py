"""Changes of coordinates that leave the mutual information as it is.

I(x; y) is the same for f(x) and g(y) whenever f and g can be undone. Estimators are not so
indifferent: they want coordinates without heavy tails and of comparable scale.
"""

from __future__ import annotations

import numpy as np

from polycode_plugins.information.samples import Floats, Labels

#: Beyond this width the critics and the Gaussian see the leading principal components only.
MAXIMUM_WIDTH = 256
#: Share by which a gap between neighbouring values is stretched or shrunk at most.
UNEVEN = 0.1


def standardise(values: Floats) -> Floats:
    """Every coordinate of `values` [samples, width] shifted and scaled to mean 0, variance 1."""
    centred = values - values.mean(0)
    # Dividing by the range first keeps the square of a huge value finite.
    centred = centred / np.abs(centred).max(0)
    return np.asarray(centred / np.sqrt((centred**2).mean(0)))


def normal_scores(values: Floats) -> Floats:
    """Every coordinate replaced by the Gaussian quantile of its rank: the Gaussian copula.

    Undone by any increasing function, so it costs no information, and no tail is left: Cauchy
    becomes Gaussian. The quantile is taken at (rank - 1/2) / samples; ties share their mean rank,
    so an atom remains one.
    """
    from scipy.special import ndtri
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0)
    return np.asarray(ndtri((ranks - 0.5) / len(values)))


def uneven(values: Floats, rng: np.random.Generator) -> Floats:
    """Gaps between the distinct values of a coordinate stretched by up to `UNEVEN` either way.

    On a grid with even steps most distances are equal, so that a ball grows from one cell to all of
    a cell's neighbours in every direction at once. With gaps that differ it takes them one by one.
    Values keep their order and equal ones stay equal, so no information is lost; coordinates
    [samples, width] without a repeated value are left as they are.
    """
    out = values.copy()
    for column in out.T:
        distinct, index = np.unique(column, return_inverse=True)
        if len(distinct) == len(column):
            continue
        gaps = np.diff(distinct) * (1 + UNEVEN * rng.uniform(-1, 1, len(distinct) - 1))
        column[:] = np.concatenate([distinct[:1], distinct[0] + np.cumsum(gaps)])[index.reshape(-1)]
    return out


def principal_components(values: Floats, width: int | None = None) -> tuple[Floats, float]:
    """`values` [samples, features] in their principal axes, and the share of variance kept.

    Directions without variance (to rounding) are left out, so the result has full rank; at most
    `width` components.
    """
    centred = values - values.mean(0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    rank = int((singular > singular[0] * max(values.shape) * np.finfo(np.float64).eps).sum())
    kept = rank if width is None else min(rank, width)
    share = float((singular[:kept] ** 2).sum() / (singular**2).sum())
    return np.asarray(left[:, :kept] * singular[:kept]), share


def regaussianise(scores: Floats) -> Floats:
    """Normal scores of the principal components of `scores` [samples, width].

    With the normal scores before it, a step of rotation-based iterative Gaussianisation (Laparra
    et al. 2011). It takes the tails off the minor axes of curved data, which a quadratic critic
    cannot bear.
    """
    if scores.shape[1] == 1:
        return scores
    return normal_scores(principal_components(scores)[0])


def one_hot(labels: Labels) -> Floats:
    """Labels [samples] as indicator columns [samples, symbols], scaled to unit variance."""
    columns = np.eye(int(labels.max()) + 1)[labels]
    share = columns.mean(0)
    return np.asarray((columns - share) / np.sqrt(share * (1 - share)))
