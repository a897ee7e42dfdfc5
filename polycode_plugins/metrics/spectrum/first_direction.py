"""Whether a few rows make the first direction of a layer, which ones, and what is left without.

In trained language models a handful of tokens have massive activations along one direction (Sun et
al. 2024, "Massive activations in large language models"): it holds most of the variance, and every
number that is made of eigenvalues speaks of these tokens. Rows differ along the first eigenvector v
by c_i = (v . (x_i - mean))^2, and sum c_i = (n - 1) lambda_1. Of Gaussian rows an eighth makes half
of that sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polycode_plugins.metrics.accumulators import Covariance
from polycode_plugins.metrics.spectrum.effective_dimensions import (
    EffectiveDimensions,
    effective_dimensions,
)
from polycode_plugins.metrics.spectrum.priority_sample import Kept, KeptRow, PrioritySample
from polycode_plugins.metrics.spectrum.row_spread import row_spread
from polycode_plugins.metrics.spectrum.rows.correlation import RowCorrelation

Array = NDArray[np.float64]

RULES = 0.2  # share of the variance from which on a direction rules
FEW = 0.025  # of all rows: a fifth of the Gaussian ones that make half of a direction
ONE = 0.05  # the same for a single row
FAR = 5.0  # standard deviations of the other rows along the direction
MANY = 0.1  # of all rows: more are no rows apart from the others
SHOWN = 16  # letters of a token
NAMED = 20  # rows that a result names


@dataclass(frozen=True)
class NamedRow(KeptRow):
    """A row and its share of the variance along the first direction.

    Attributes:
        share: (v . (x - mean))^2 / ((n - 1) lambda_1), in [0, 1].
    """

    share: float

    def __str__(self) -> str:
        what = "" if self.text is None else f"“{_line(self.text)}” in "
        if self.text is None and self.token is not None:
            what = f"token {self.token} in "
        where = f"row {self.row}"
        if len(self.place) == 1:
            where += f", position {self.place[0]}"
        elif self.place:
            where += f", place {' x '.join(map(str, self.place))}"
        return f"{what}{where}"


@dataclass(frozen=True)
class Remainder:
    """What a spectrum is without the rows that rule its first direction.

    Attributes:
        n_rows: rows left out. n_samples: the rest.
        total_variance: of the rest. first_share: share of its first direction.
        dimensions: its measures. Its correlation between rows is taken to be that of all.
    """

    n_rows: int
    n_samples: int
    total_variance: float
    first_share: float
    dimensions: EffectiveDimensions


@dataclass(frozen=True)
class FirstDirection:
    """The direction of most variance, and the rows that make it.

    Attributes:
        share: share of the total variance that it holds.
        half_rows: how many rows, those that differ most along it, make half of its variance; an
            estimate to about a tenth where more than those kept (256) do. None where no rows were
            kept, in states of earlier versions.
        half_share: the same as a share of all rows; an eighth for Gaussian rows.
        covered: share of its variance that rows kept for certain make; what one other row makes is
            less than what the least of them can.
        rows: up to 20 rows, largest share first; of those kept.
        places: [k] how many of the rows that make half stand at each position, most first: pairs
            (place, share of them), up to 3.
        remainder: the spectrum without the rows more than 5 standard deviations of all others away
            along the direction, of those kept for certain; None unless the direction rules and
            these make half of it.
        why: why there is no remainder where the direction rules; "" where there is one.
    """

    share: float
    half_rows: float | None
    half_share: float | None
    covered: float | None
    rows: tuple[NamedRow, ...] = ()
    places: tuple[tuple[tuple[int, ...], float], ...] = ()
    remainder: Remainder | None = None
    why: str = ""

    @property
    def rules(self) -> bool:
        """Whether it holds a fifth of the variance and few rows make half of it: at most 2.5%, or
        one of at least 20."""
        if self.half_rows is None or self.half_share is None or self.share < RULES:
            return False
        return self.half_share <= (FEW if self.half_rows > 1 else ONE)


def _line(text: str) -> str:
    """A token's text on one line, and not a long one."""
    for sign, name in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(sign, name)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def first_direction(
    covariance: Covariance,
    sample: PrioritySample,
    eigenvalues: Array,
    *,
    rows: RowCorrelation,
    vector: Tensor | None = None,
) -> FirstDirection:
    """What the kept rows say of the first direction.

    Args:
        covariance: of all rows.
        sample: those kept.
        eigenvalues: [k] of `covariance`, descending.
        rows: how rows are correlated, for the remainder.
        vector: [width], the first eigenvector, where it is there.
    """
    share = float(eigenvalues[0] / eigenvalues.sum())
    n = covariance.n_samples
    if sample.n_samples != n:  # gathered, in part, before rows were kept
        why = "the state is, in part, of a version that kept no rows; gather it anew"
        return FirstDirection(share, None, None, None, why=why)
    kept = sample.kept(covariance.mean())
    vector = covariance.leading_direction() if vector is None else vector.cpu().double()
    along = (kept.rows * vector).sum(dim=1).numpy()
    counts = kept.counts.numpy()
    total = (n - 1) * float(eigenvalues[0])
    order = np.argsort(-(along**2), kind="stable")
    held = along[order] ** 2 / total
    certain = counts[order] == 1
    stand_for = _calibrated(held, counts[order])
    half, used = _half(held, stand_for, n)
    names = [kept.names[i] for i in order]
    found = FirstDirection(
        share=share,
        half_rows=half,
        half_share=half / n,
        covered=min(1.0, float(held[certain].sum())),
        rows=tuple(
            NamedRow(**vars(name), share=float(part))
            for name, part in list(zip(names, held, strict=True))[:NAMED]
        ),
        places=_places(names, used),
    )
    if not found.rules:
        return found
    far = _far(along[order], stand_for, total, n)
    gone = far[certain[far]]
    if held[gone].sum() < 0.5:
        why = (
            "more rows than are kept lie far out along it, so that they cannot be taken out; "
            "leave them out of the data (a position by the mask), and measure again"
        )
        return replace(found, why=why)
    if covariance.precision == "float32" and not covariance.keeps_rows:
        why = "precision='float32' rounds too much for taking rows out; use 'float64'"
        return replace(found, why=why)
    return replace(found, remainder=_remainder(covariance, kept, order[gone].copy(), rows))


def _calibrated(held: Array, counts: Array) -> Array:
    """The counts of rows kept by chance, scaled so that all shares together are 1, as they are."""
    certain = counts == 1
    rest = float((held * counts)[~certain].sum())
    missing = max(1 - float(held[certain].sum()), 0.0)
    return np.where(certain, 1.0, counts * (missing / rest if rest > 0 else 1.0))


def _half(held: Array, counts: Array, n: int) -> tuple[float, Array]:
    """How many rows make half, and how many of those that each kept one stands for are among them.

    held: [k] shares of single rows, largest first. counts: [k] rows that each stands for.
    """
    needed = np.clip(0.5 - np.concatenate([[0.0], np.cumsum(held * counts)[:-1]]), 0.0, None)
    used = np.minimum(counts, needed / np.maximum(held, 1e-300))
    used = np.where((counts == 1) & (used > 0), 1.0, used)  # rows come whole
    return float(min(used.sum(), n)), used


def _far(along: Array, counts: Array, total: float, n: int) -> NDArray[np.int64]:
    """Indices of the rows that are far from all others along the direction.

    along: [k] how far each kept row is from the mean, largest first; total: sum of squares of all.
    """
    gone = np.cumsum(counts)
    left = np.maximum(n - gone, 1.0)
    mean = -np.cumsum(counts * along) / left
    spread = np.maximum(total - np.cumsum(counts * along**2) - left * mean**2, 0.0)
    deviation = np.sqrt(spread / np.maximum(left - 1, 1.0))
    far = (np.abs(along - mean) > FAR * deviation) & (gone <= MANY * n) & (gone <= n - 3)
    return np.arange(int(far.nonzero()[0].max(initial=-1)) + 1)


def _places(names: Sequence[KeptRow], used: Array) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Where the rows stand that make half."""
    weights: dict[tuple[int, ...], float] = {}
    for name, weight in zip(names, used, strict=True):
        if name.place and weight:
            weights[name.place] = weights.get(name.place, 0.0) + float(weight)
    order = sorted(weights, key=lambda place: (-weights[place], place))
    return tuple((place, weights[place] / float(used.sum())) for place in order[:3])


def _remainder(
    covariance: Covariance, kept: Kept, gone: NDArray[np.int64], rows: RowCorrelation
) -> Remainder:
    """The spectrum without some kept rows; at least 3 of all and some variance are left."""
    left = covariance.without(kept.values[gone])
    values = left.eigenvalues().cpu().numpy()
    # What was taken out leaves rounding of its own size, not of that of the rest.
    rounding = np.finfo(np.float64).eps * len(values) * float(covariance.eigenvalues()[0])
    values = values[values > rounding]
    n = left.n_samples
    varying = int((left.variances() > 0).sum())
    others = np.setdiff1d(np.arange(len(kept.rows)), gone)
    apart = kept.values[others].double() - left.mean().cpu()
    square = rows.mean_square(values)
    spread = row_spread(left, values, apart, kept.counts[others], square=square)
    return Remainder(
        n_rows=len(gone),
        n_samples=n,
        total_variance=float(values.sum()),
        first_share=float(values[0] / values.sum()),
        dimensions=effective_dimensions(
            values, n, width=max(varying, len(values)), rows=rows, spread=spread
        ),
    )
