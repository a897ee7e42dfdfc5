"""Reading two sample arrays, and how one estimator reports its value.

An estimate is worth no more than the samples are: everything that makes a finite number meaningless
(NaN, atoms, a constant, one array that decides the other exactly) is found here, before any
estimator runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.errors import DataError

Floats: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]

#: Below this many samples no estimator here says anything; the call is refused.
MINIMUM_SAMPLES = 32
#: Samples to each distinct row from which on values count as discrete.
DEPTH = 10


@dataclass(frozen=True)
class Estimate:
    """What one estimator says: `nats` as computed (an estimate can fall below 0 by chance).

    error: standard error [nats] from sampling alone, so without the estimator's bias.
    baseline, gain, gain_error: for a variational bound, the held-out value of the Gaussian critic
    it started from, what training added to it and the standard error of that [nats].
    curve: [checks, 3], training step, training bound and held-out bound [nats]; empty when nothing
    was trained.
    chance: what the estimator says on average where nothing is shared (of shuffled pairs) [nats];
    subtracted from `nats` where values repeat. None where that was not asked.
    slack: how much lower and how much higher than `nats` the value may lie beyond sampling, where
    the correction of a bias is itself in doubt [nats].
    """

    nats: float
    error: float
    baseline: float = 0.0
    gain: float = 0.0
    gain_error: float = 0.0
    curve: Floats = field(default_factory=lambda: np.empty((0, 3)))
    chance: float | None = None
    slack: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Samples:
    """One side of the pair: real-valued `values` [samples, width], or `labels` [samples]."""

    name: str
    values: Floats
    labels: Labels | None
    shape: tuple[int, ...]
    dropped: int = 0  # constant coordinates, which carry no information

    @property
    def discrete(self) -> bool:
        """Whether the side is a label, of which only equality counts."""
        return self.labels is not None

    @property
    def width(self) -> int:
        """Coordinates that vary; a label is one."""
        return 1 if self.labels is not None else self.values.shape[1]

    @property
    def codes(self) -> Labels | None:
        """Every distinct row's number [samples], where rows are few enough to be counted.

        A label's are its own; values count as discrete with `DEPTH` samples to each distinct row.
        """
        if self.labels is not None or not self.width:
            return self.labels
        found = distinct(self.values)
        return found if (int(found.max()) + 1) * DEPTH <= len(found) else None

    @property
    def constant(self) -> bool:
        """Whether every sample is the same."""
        return self.width == 0 or (self.labels is not None and int(self.labels.max()) == 0)


def read(values: Any, name: str) -> Samples:
    """`values` [samples] or [samples, width], NumPy or torch, of any float type or of integers.

    Integers and booleans are labels: each distinct row is one symbol and its order means nothing.
    Floats are coordinates; those that never vary are dropped and counted. Raises `DataError` for
    NaN, infinities, other shapes and fewer than 32 samples.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name} holds {array.dtype}, not real numbers or labels; convert it.")
    if array.ndim not in (1, 2):
        raise DataError(
            f"{name} has shape {array.shape}; pass [samples] or [samples, features], flattening "
            "further axes into one of the two."
        )
    if len(array) < MINIMUM_SAMPLES:
        raise DataError(
            f"{name} has {len(array)} samples, from which no mutual information can be told; pass "
            f"at least {MINIMUM_SAMPLES}, better thousands."
        )
    rows = array.reshape(len(array), -1)
    if array.dtype.kind in "iub":
        return Samples(name, np.empty((len(rows), 0)), distinct(rows), array.shape)
    rows = rows.astype(np.float64)
    if not np.isfinite(rows).all():
        bad = int((~np.isfinite(rows)).any(1).sum())
        raise DataError(
            f"{name} holds NaN or infinity in {bad} of {len(rows)} samples; find out why, and "
            "remove those samples from both arrays."
        )
    varies = (rows != rows[:1]).any(0)
    return Samples(name, rows[:, varies], None, array.shape, int((~varies).sum()))


def repeated(values: Floats) -> float:
    """The largest share, over the coordinates, of samples whose value occurs more than once.

    Continuous values never repeat: a share above zero betrays atoms (zeros after a ReLU or dropout,
    quantised or half-precision values, duplicated samples).
    """
    share = 0.0
    for column in values.T:
        _, counts = np.unique(column, return_counts=True)
        share = max(share, float(counts[counts > 1].sum()) / len(column))
    return share


def distinct(rows: NDArray[Any]) -> Labels:
    """A number for each of `rows` [samples, width], from 0, the same for equal rows alone."""
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def copies(x: Floats, y: Floats) -> float:
    """The share of samples that are copies: their pair (x, y) occurs again, and not by chance.

    Where values repeat by their nature (zeros, rounding) whole pairs do too, and are samples like
    others. Copies betray themselves by an x and a y that occur with each other and nowhere else.
    """
    times, in_x, in_y = (
        np.bincount(rows)[rows] for rows in map(distinct, (np.hstack([x, y]), x, y))
    )
    return float(((times > 1) & (in_x == times) & (in_y == times)).mean())


def heavy_tailed(values: Floats) -> bool:
    """Whether some coordinate's tails are far beyond a Gaussian's.

    Compares the 99.8% central range with the interquartile range: 4.58 for a Gaussian, 2.0 for a
    uniform, 10 for a Laplace, 318 for a Cauchy variable. Moments are of no use here, since a
    Cauchy variable has none. Coordinates with half of their mass in one atom do not count.
    """
    low, first, third, high = np.quantile(values, [0.001, 0.25, 0.75, 0.999], axis=0)
    inner = third - first
    return bool(((high - low)[inner > 0] > 12 * inner[inner > 0]).any())
