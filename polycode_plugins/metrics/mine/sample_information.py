"""How much information a population's spectrum carries, from the eigenvalues of a sample.

The sum of log(1 + eigenvalue / noise) over a sample covariance is too small: the logarithm is
concave and sampling spreads the eigenvalues, so n samples of width d lose about d^2 / 4n nats of
1/2 log det, which would pass for redundancy. For Gaussian rows the loss is known. With S the sample
covariance (n degrees of freedom), tau_j the population's eigenvalues and x the noise,

    E log det(1 + S/y) = sum_j log(1 + tau_j/x) + n log(x/y) - n (1 - y/x) + 1/2 log(dy/dx),

where y solves y = x - (x/n) sum_j tau_j / (x + tau_j) (Silverstein 1995; the Shannon transform of
random matrix theory). That is 1/n tr (G + y)^-1 = 1/x with the Gram matrix G [n, n] of the same
eigenvalues, so y follows from the sample alone, and the equation read backwards estimates the
population's sum (a G-estimator in the sense of Girko). The last term is the mean in the central
limit theorem of Bai & Silverstein 2004 (theorem 1.1) for real data, whose variance is
-2 log(dy/dx).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LogDeterminant:
    """log det(1 + Sigma / noise) [nats] of a population, estimated from a sample.

    Attributes:
        value: the estimate, its bias O(1/n), at a noise that does not depend on the sample.
        naive: the same sum over the sample's eigenvalues, biased low.
        variance: of `value`.
        trace_covariance: of `value` with the relative error of the sample's total variance.
        resolved: sum_j tau_j / (noise + tau_j), about the number of components above the noise;
            minus the derivative of `value` with respect to log noise.
    """

    value: float
    naive: float
    variance: float
    trace_covariance: float
    resolved: float


def log_determinant(eigenvalues: Floats, noise: float, dof: float) -> LogDeterminant | None:
    """Estimate log det(1 + Sigma / noise) from sample eigenvalues, for independent Gaussian rows.

    Args:
        eigenvalues: [k] of the centred sample covariance; zeros may be left out, and one
            must be positive.
        noise: variance > 0 in every direction, in the unit of the eigenvalues.
        dof: degrees of freedom of the covariance, samples - 1; of correlated samples the number
            of independent ones that they are worth, which is right to first order in width / dof.

    Returns:
        None where the sample does not determine it: with as many non-zero eigenvalues as degrees
        of freedom, directions may exist that no sample has shown, and the noise is too small to
        drown them. With more of them dof is an effective number, too small for a correction.
    """
    from scipy.optimize import brentq

    values = eigenvalues[eigenvalues > 0] / noise
    unseen = dof - values.size

    def resolvent(y: float, power: int) -> float:
        """1/n tr (G + y)^-power, in the unit of the noise."""
        return (float(((values + y) ** -power).sum()) + (unseen / y**power if unseen else 0)) / dof

    if unseen < 0 or (not unseen and resolvent(0.0, 1) <= 1):
        return None
    y = float(brentq(lambda y: resolvent(y, 1) - 1, unseen / dof, 1.0, xtol=1e-15))
    hidden, log_slope = 1 - y, float(np.log(resolvent(y, 2)))  # 1 - y/x and log(dx/dy)
    resolved, total = dof * hidden, float(values.sum())
    return LogDeterminant(
        value=float(np.log1p(values / y).sum() + dof * (np.log1p(-hidden) + hidden))
        + log_slope / 2,
        naive=float(np.log1p(values).sum()),
        variance=2 * log_slope,
        # Tilting the distribution by the trace moves each tau_j in proportion to tau_j^2.
        trace_covariance=2 / dof * (total - resolved) / total,
        resolved=resolved,
    )
