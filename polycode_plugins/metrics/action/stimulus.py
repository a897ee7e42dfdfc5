"""How the random projections of a path follow the stimulus that caused it.

Marshall & Kirchner 2024: the script `make_plots.py` that supplement 1 describes correlates inputs
and projections, layer by layer. The paper does not say how, so it is defined here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from einops import einsum
from numpy.typing import NDArray
from torch import Tensor

from polycode_plugins.errors import DataError
from polycode_plugins.metrics.action.trajectory import Floats, Trajectories, as_matrix, trajectories


@dataclass(frozen=True)
class StimulusCorrelation:
    """How the coordinates of projections follow those of a stimulus over time.

    Slow coordinates correlate by chance: hold it against a stimulus that moves alike and was not
    shown. NaN is what is undefined: every number that involves a stimulus or projection coordinate
    that is constant in time, and R^2 of no more time steps than k + 1.

    Attributes:
        pearson: float64 [n, k, c], correlation of each projection and stimulus coordinate.
        r_squared: float64 [n, c], share of the variance of a stimulus coordinate that a linear
            function of all k coordinates explains, fitted to the same time steps.
        chance: k / (time - 1), the mean R^2 of unrelated coordinates without memory.
    """

    pearson: Floats
    r_squared: Floats
    chance: float

    @property
    def correlation(self) -> Floats:
        """float64 [n], mean over all k x c pairs of |Pearson's r|, from 0 to 1."""
        mean: Floats = np.abs(self.pearson).mean(axis=(1, 2))
        return mean

    @property
    def mean(self) -> float:
        """Mean over projections of `correlation`."""
        return float(self.correlation.mean())

    @property
    def mean_r_squared(self) -> float:
        """Mean over projections and stimulus coordinates of `r_squared`."""
        return float(self.r_squared.mean())


def stimulus_correlation(
    path: Trajectories | Tensor | NDArray[Any],
    stimulus: Tensor | NDArray[Any],
    **options: Any,
) -> StimulusCorrelation:
    """Correlate the stimulus [time, c] with the projections of a path, see `StimulusCorrelation`.

    Args:
        path: the trajectories, of which the kept ones are used, or a path [time, width], of which
            they are made with `options` (projections, dimensions, seed).
        stimulus: coordinates of the input, such as (cos, sin) of a dot on a circle.

    Raises:
        DataError: where the numbers of time steps differ, or values are not finite.
    """
    if not isinstance(path, Trajectories):
        path = trajectories(path, **options)
    elif options:
        raise DataError(f"the trajectories are already made; give {next(iter(options))} to them")
    given = as_matrix(stimulus, "stimulus").cpu().numpy()
    n, time, k = path.points.shape
    if len(given) != time:
        raise DataError(f"the stimulus has {len(given)} time steps and the path {time}")
    inputs, points = _standard(given), _standard(path.points)
    r_squared = np.full((n, inputs.shape[1]), np.nan)
    if time > k + 1:
        # Coordinates may be collinear (a path in fewer than k dimensions): project on their span.
        basis, sizes, _ = np.linalg.svd(np.nan_to_num(points), full_matrices=False)
        basis = basis * (sizes > 1e-10 * sizes[:, :1])[:, None, :]
        r_squared = (einsum(basis, inputs, "n time k, time c -> n k c") ** 2).sum(axis=1)
        r_squared[np.isnan(points).any(axis=(1, 2))] = np.nan
    pearson = np.clip(einsum(points, inputs, "n time k, time c -> n k c"), -1, 1)
    return StimulusCorrelation(pearson, np.minimum(r_squared, 1), k / (time - 1))


def _standard(values: Floats) -> Floats:
    """[..., time, c] centred and of length 1 over time; NaN where it is constant."""
    centred = values - values.mean(axis=-2, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=-2, keepdims=True))
    rounding = 1e-12 * np.abs(values).max(axis=-2, keepdims=True) * values.shape[-2] ** 0.5
    moving = (length > rounding) & (length > 0)
    standard: Floats = np.full_like(centred, np.nan)
    np.divide(centred, length, out=standard, where=moving)
    return standard
