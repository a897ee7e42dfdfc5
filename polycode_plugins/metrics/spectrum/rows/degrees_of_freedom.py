"""Sums over the population's eigenvalues tau_j, from those of a sample, without a law for them.

Ridge regression onto a layer has D(kappa) = sum_j tau_j / (tau_j + kappa) degrees of freedom. The
sample has df(z) = sum_i lambda_i / (lambda_i + z), and in the limit of many samples and features
both are one curve: Silverstein's equation (see `sample_spectrum`), on the negative axis, says

    D(kappa) = df(z)    where    kappa = z / (1 - df(z) / n)

(Dobriban & Wager 2018, Ann. Statist. 46; for correlated rows kappa = z / H(-df / n), H of
`correlation.Form`). No equation has to be solved for it. Sums over the population are
integrals of D:

    sum tau^s     = sin(pi s) / pi  int D(kappa) kappa^(s - 1) dkappa,    0 < s < 1,
    sum tau log tau = int (sum tau / (1 + kappa) - D(kappa)) dkappa.

With fewer samples than features D is known down to kappa_0 = kappa(z = 0) alone. Below it lie the
bounds that the value and slope at kappa_0 and the width leave (the principal representations of
Krein & Nudelman 1977): the smallest D has as many zeros among the tau_j as possible, the largest as
many that are far above kappa_0.

The errors of df are those of Bai & Silverstein (2004, Ann. Probab. 32, theorem 1.1), for Gaussian
rows: Cov(log det(S + x), log det(S + y)) = -2 log(1 - c), with
1 - c = 1 + (w_x g_x - w_y g_y) (H_x - H_y) / ((w_x - w_y) (u_x - u_y) H_x H_y), u = g / H.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.metrics.spectrum.rows.correlation import RowCorrelation

Array = NDArray[np.float64]

STEP = 0.1  # of log z between the nodes of one grid; a second grid lies between them
BEYOND = 1e3  # how far above the largest eigenvalue, and below the smallest, the curve is followed
LARGE = 0.1  # of D, for its mean error
UNSEEN = np.linspace(-30.0, 0.0, 601)  # log(kappa / kappa_0) of what lies below the first node


@dataclass(frozen=True)
class Entropy:
    """An entropy of the population's normalised spectrum [nats].

    low, high: between them lie all populations with the curve that was seen; equal to `value` where
    it was seen whole. by_curve: [nodes] its derivative by D, per unit of log kappa; by_first: by D
    at the first node; by_trace: by sum tau.
    """

    value: float
    low: float
    high: float
    by_curve: Array
    by_first: float
    by_trace: float


@dataclass(frozen=True)
class RidgeSums:
    """What a sample's eigenvalues say at all z, however its rows are correlated.

    eigenvalues: [k], descending, in units in which the mean over `width` is 1. width: features that
    vary. z: [nodes], ascending. degrees: [nodes] df(z). left: [nodes] k - df without cancellation.
    moved: [nodes] d df / d log z.
    """

    eigenvalues: Array
    width: int
    z: Array
    degrees: Array
    left: Array
    moved: Array

    @classmethod
    def of(cls, eigenvalues: Array, width: int) -> RidgeSums:
        """The sums of a sample.

        eigenvalues: [k] of the sample covariance, descending, none that is rounding.
        width: features that vary, at least k.
        """
        values = eigenvalues / (eigenvalues.sum() / width)
        first, last = np.log(values[-1] / BEYOND), np.log(values[0] * BEYOND)
        z = np.exp(first + STEP / 2 * np.arange(2 * int((last - first) / STEP) + 1))
        inverse = 1 / (values + z[:, None])
        df, left = inverse @ values, z * inverse.sum(axis=1)
        inverse *= inverse
        return cls(values, width, z, df, left, -z * (inverse @ values))


@dataclass(frozen=True)
class DegreesOfFreedom:
    """The curve D(kappa), in units in which the mean eigenvalue is 1.

    Attributes:
        n: degrees of freedom of the sample covariance.
        width: features that vary.
        log_kappa, curve: float64 [nodes], ascending in kappa; nodes are equidistant in log z.
        mended: [nodes] the curve without its mean error, of first order in 1 / n (the mean of
            theorem 1.1); for correlated rows that are not as if repeated, the curve.
        slope: [nodes] dD / d log kappa.
        stretch, bent: [nodes] H = z / kappa and dH / dg at g = -D / n.
        ends: the smallest and the largest eigenvalue of the sample.
        complete: whether all of the curve was seen: below the first node D keeps its value.
    """

    n: float
    width: int
    log_kappa: Array
    curve: Array
    mended: Array
    slope: Array
    stretch: Array
    bent: Array
    ends: tuple[float, float]
    complete: bool

    @classmethod
    def of(cls, sums: RidgeSums, dof: float, rows: RowCorrelation) -> DegreesOfFreedom:
        """The curve of a sample.

        dof: samples - 1. rows: how samples are correlated.
        """
        simple = rows.independent or rows.nearly_repeated
        n = dof / rows.square if simple else dof
        values, width, z, df, moved = (
            sums.eigenvalues, sums.width, sums.z, sums.degrees, sums.moved
        )  # fmt: skip
        if simple:
            stretch = (n - len(values) + sums.left) / n  # 1 - df / n without cancellation
            bent = np.ones_like(z)
        else:
            h, slopes = rows.form().stretch((-df / n).astype(np.complex128))
            stretch, bent = h.real, slopes.real
        steep = bent / (n * np.where(stretch > 0, stretch, np.inf))
        wrong = (stretch <= 0) | (1 + steep * moved <= 0)
        if not rows.independent and len(values) > rows.ranks(dof, width):
            # How more eigenvalues come of so few effective rows is not known well enough.
            wrong |= df > rows.ranks(dof, width)
        start = int(np.append(wrong, False).nonzero()[0].max(initial=-1)) + 1
        start = min(start + (len(z) - 1 - start) % 2, len(z) - 3)  # whole cells
        z, df, moved, stretch, bent, steep = (
            part[start:] for part in (z, df, moved, stretch, bent, steep)
        )
        log_kappa = np.log(z / stretch)
        slope = moved / (1 + steep * moved)
        mended = df
        if simple:
            # x = tau / (tau + kappa) has the sum D, and of its squares and x^2 (1 - x) the sums:
            squares = df + slope
            cubic = -np.gradient(squares, log_kappa) / 2
            with np.errstate(divide="ignore", invalid="ignore"):
                early = -stretch * cubic / n / (1 - squares / n) ** 2 * (1 - slope * steep)
            # A correction of first order is none where it is large.
            mended = df - np.where(np.abs(early) < LARGE * df, early, 0.0)
        return cls(
            n=n,
            width=width,
            log_kappa=log_kappa,
            curve=df,
            mended=mended,
            slope=slope,
            stretch=stretch,
            bent=bent,
            ends=(float(values[-1]), float(values[0])),
            complete=start == 0 and len(values) < n,
        )

    @property
    def kappa(self) -> Array:
        """[nodes]"""
        return np.exp(self.log_kappa)

    @property
    def square(self) -> float:
        """sum tau^2, from the far end of the curve; sum tau is the width."""
        kappa = float(self.kappa[-1])
        return kappa * (self.width - kappa * float(self.mended[-1]))

    def unseen(self) -> tuple[Array, Array, Array]:
        """D below the first node, [len(UNSEEN)]: the least, an estimate, the most.

        The estimate goes from value and slope at kappa_0 to the width at 0 as
        width / (1 + (kappa / c)^b) does, which power laws nearly follow.
        """
        count = min(float(self.mended[0]), float(self.width))
        if self.complete:
            flat = np.full(len(UNSEEN), count)
            return flat, flat, flat
        # x = tau / (tau + kappa_0) has sum D(kappa_0) and sum of squares `square`.
        square = count + float(self.slope[0])
        ratio = np.exp(UNSEEN)
        x = min(max(square / count, 1e-12), 1 - 1e-12)
        least = count / x * x / (x + ratio * (1 - x))
        empty = max(self.width - count, 0.0)
        x = min(max((count - square) / empty, 0.0), 1 - 1e-12) if empty else 0.0
        most = self.width - empty * ratio / (x + ratio * (1 - x)) if empty else least
        least = np.minimum(least, most)
        power = -float(self.slope[0]) / count / (1 - count / self.width) if empty else 1.0
        between = self.width / (1 + (self.width / count - 1) * ratio**power)
        return least, np.clip(between, least, most), most

    def entropy(self, *, of_roots: bool) -> Entropy:
        """Entropy [nats] of the normalised eigenvalues, or of their square roots."""
        kappa, log = self.kappa, self.log_kappa
        below = log[0] + UNSEEN
        top, width = log[-1], float(self.width)
        end = float(kappa[-1])
        # Entropy = log a - power b / a of the sums a over tau^power and b over tau^power log tau:
        # integrals of D with these weights, and what lies beyond the last node.
        if of_roots:
            power = 0.5
            weight = np.stack([kappa**0.5, kappa**0.5 * log]) / np.pi
            weight_below = np.stack([np.exp(below / 2), np.exp(below / 2) * below]) / np.pi
            by_trace = np.array([2.0, 2 * top + 4]) * end**-0.5 / np.pi
            by_square = np.array([-2 / 3, -2 / 3 * top - 4 / 9]) * end**-1.5 / np.pi
        else:
            power = 1.0
            weight = np.stack([np.zeros_like(kappa), -kappa])
            weight_below = np.stack([np.zeros_like(below), -np.exp(below)])
            by_trace = np.array([1.0, top])
            by_square = np.array([0.0, 1 / end])
        known = np.trapezoid(self.mended * weight, log) + by_trace * width + by_square * self.square
        sums = [
            known + np.trapezoid(one * weight_below, below)
            for one in (self.unseen()[:1] if self.complete else self.unseen())
        ]
        if self.complete:
            sums *= 3
        low, value, high = (float(np.log(a) - power * b / a) for a, b in sums)
        a, b = sums[1]
        by_sums = np.array([1 / a + power * b / a**2, -power / a])
        return Entropy(
            value,
            min(low, value, high),
            max(low, value, high),
            by_sums @ weight,
            float(by_sums @ np.trapezoid(weight_below, below)),
            float(by_sums @ by_trace),
        )

    def error(self, of: Entropy) -> float:
        """Standard error of an entropy of this curve, for Gaussian rows."""
        weight, first, trace = of.by_curve, of.by_first, of.by_trace
        own = 1 - self.slope * self.bent / (self.n * self.stretch)  # of D by df
        points = np.zeros((2, len(weight)))
        for grid, start in enumerate((1, 2)):
            cells = np.arange(start, len(weight) - 1, 2)
            low, high = self.log_kappa[cells - 1], self.log_kappa[cells + 1]
            low[0], high[-1] = self.log_kappa[0], self.log_kappa[-1]
            pull = weight[cells] * (high - low)
            pull[0] += first
            pull[-1] += trace * np.exp(self.log_kappa[cells[-1]])
            # df is the width less the derivative of the log determinant by log z.
            points[grid, cells + 1] -= pull * own[cells] / STEP
            points[grid, cells - 1] += pull * own[cells] / STEP
        even, odd = slice(0, None, 2), slice(1, None, 2)
        w, g = -self.kappa, -self.curve / self.n
        h, u = self.stretch, g / self.stretch

        def apart(values: Array) -> Array:
            return np.asarray(values[even, None] - values[None, odd])

        scale = self.stretch[even, None] * self.stretch[None, odd]
        kernel = -2 * np.log1p(apart(w * g) * apart(h) / (apart(w) * apart(u) * scale))
        return float(np.sqrt(max(points[0][even] @ kernel @ points[1][odd], 0.0)))
