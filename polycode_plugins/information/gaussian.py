"""Mutual information of jointly Gaussian variables: canonical correlations in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polycode_plugins.errors import DataError
from polycode_plugins.information.samples import Estimate, Floats

#: 1 - r^2 below this is a canonical correlation of 1 to the rounding of float32 inputs.
EXACT = 1e-10


@dataclass(frozen=True)
class Canonical:
    """Canonical correlations (Hotelling 1936) of two sample arrays.

    x_axes [width x, rank x], y_axes [width y, rank y]: maps of the centred arrays to uncorrelated
    unit-variance variates, of which the i-th pair has sample correlation `correlations[i]`.
    """

    x_mean: Floats
    y_mean: Floats
    x_axes: Floats
    y_axes: Floats
    correlations: Floats
    n_samples: int

    def x_variates(self, x: Floats) -> Floats:
        """Canonical variates [samples, rank x]."""
        return np.asarray((x - self.x_mean) @ self.x_axes)

    def y_variates(self, y: Floats) -> Floats:
        """Canonical variates [samples, rank y]."""
        return np.asarray((y - self.y_mean) @ self.y_axes)


def canonical(x: Floats, y: Floats) -> Canonical:
    """Canonical correlation analysis of `x` [samples, width x] and `y` [samples, width y].

    Works in the span of the samples, so a rank-deficient array is no fault. Raises `DataError`
    where the ranks leave fewer than 2 degrees of freedom: then every correlation is 1 whatever
    the data.
    """
    ux, sx, x_axes = _whiten(x)
    uy, sy, y_axes = _whiten(y)
    if len(sx) + len(sy) > len(x) - 2:
        raise DataError(
            f"{len(x)} samples span {len(sx)} + {len(sy)} dimensions, which leaves the Gaussian "
            "estimate nothing to judge by; pass more samples or fewer features."
        )
    left, correlations, right = np.linalg.svd(ux.T @ uy, full_matrices=True)
    scale = np.sqrt(len(x))
    return Canonical(
        x.mean(0),
        y.mean(0),
        (x_axes / sx) @ left * scale,
        (y_axes / sy) @ right.T * scale,
        np.clip(correlations, 0.0, 1.0),
        len(x),
    )


def _whiten(values: Floats) -> tuple[Floats, Floats, Floats]:
    centred = values - values.mean(0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    keep = singular > singular[0] * max(values.shape) * np.finfo(np.float64).eps
    return left[:, keep], singular[keep], right[keep].T


def information(correlations: Floats) -> float:
    """-1/2 sum ln(1 - r_i^2) [nats] of canonical correlations r_i in [0, 1)."""
    return float(-0.5 * np.log1p(-(np.asarray(correlations, dtype=np.float64) ** 2)).sum())


def wishart_bias(x_width: int, y_width: int, n_samples: int) -> float:
    """Expected excess [nats] of the plug-in value for Gaussian samples, whatever the truth.

    p q / 2N to leading order (p, q the widths, N the samples). Exactly, from E[ln |S|] of a
    Wishart matrix with n = N - 1 degrees of freedom (Anderson 2003, section 7.5):
    1/2 [f(p) + f(q) - f(p + q)] with f(d) = sum_{i=1..d} digamma((n + 1 - i) / 2).
    """
    from scipy.special import digamma

    terms = digamma((n_samples - np.arange(1, x_width + y_width + 1)) / 2)
    return float(
        0.5 * (terms[:x_width].sum() + terms[:y_width].sum() - terms[: x_width + y_width].sum())
    )


def estimate_gaussian(x: Floats, y: Floats) -> Estimate:
    """Gaussian mutual information [nats] of `x` and `y`, its bias corrected.

    Unbiased for Gaussian samples at any N > p + q + 1 (see `wishart_bias`). The standard error is
    sqrt(sum r_i^2 / N + pq / 2N^2): the delta method, with the term that is left when all r_i = 0
    (2 N I is then chi-squared with pq degrees of freedom). For one coordinate each, given normal
    scores, it is a lower bound in the population: of all joint densities with Gaussian margins and
    a given correlation, the Gaussian has the least information.

    Raises `DataError` where a canonical correlation is 1, since the information is then infinite.
    """
    found = canonical(x, y)
    r = found.correlations
    if len(r) and 1 - r[0] ** 2 < EXACT:
        raise DataError(
            "A linear function of y equals one of x exactly, so their mutual information is "
            "infinite; state the noise between them (channel=...) or measure something else."
        )
    p, q, n = found.x_axes.shape[1], found.y_axes.shape[1], found.n_samples
    nats = information(r) - wishart_bias(p, q, n)
    # The sample r^2 exceed the true ones by about (1 - r^2) max(p, q) / N each.
    true = np.clip(r**2 - (1 - r**2) * max(p, q) / n, 0, None)
    return Estimate(nats, float(np.sqrt(true.sum() / n + p * q / (2 * n**2))))


def significant(found: Canonical, level: float = 0.01) -> int:
    """How many leading canonical pairs are not chance (Bartlett 1941's sequential test)."""
    from scipy.stats import chi2

    r, p, q = found.correlations, found.x_axes.shape[1], found.y_axes.shape[1]
    factor = found.n_samples - 1 - (p + q + 1) / 2
    for i in range(len(r)):
        rest = -factor * np.log1p(-np.minimum(r[i:] ** 2, 1 - EXACT)).sum()
        if chi2.sf(rest, (p - i) * (q - i)) >= level:
            return i
    return len(r)
