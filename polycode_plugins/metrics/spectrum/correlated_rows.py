"""The sample spectrum when rows are correlated with one another, as the tokens of a text are.

Rows X = R^(1/2) Z Sigma^(1/2) with a correlation R [n, n] between rows (tr R = n) show a wider
sample spectrum than independent ones. At first order all that counts is the effective number of
rows n^2 / tr R^2; near as many rows as features the rest of R counts too. With
g(w) = 1/n sum_j tau_j / (w - tau_j) the fixed point of `sample_spectrum` becomes

    z = w (1 + g) / S_R(g),        S_R the S-transform of R (Voiculescu 1987),

which is Silverstein's equation for R = 1. (It follows from the two coupled equations for separable
covariances of Paul & Silverstein 2009, J. Multivariate Anal. 100.) The response to the population
keeps its form. Two moments of R, m_k = tr R^k / n, fix
z / w = H(g) = 1 + m_2 g + (m_3 - m_2^2) g^2 + .. to second order, and beyond it the form

    H(g) = m_2 g + (1 + q g^2 / k)^k,        q = m_3 - m_2^2,

is taken, with k so that H(-1) = 0 (no row is lost: R has full rank) or k = 1 where rows are. It is
exact for independent rows (m_2 = 1, q = 0), for rows that come m times each (m_2 = m, q = 0), for
rows of an autoregression of order one (k = 1/2) and for R with a Marchenko-Pastur spectrum (k = 1).
Below k = 1/2 H has a branch point where the curve may pass, so that q is held to its value there,
(m_2^2 - 1) / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

STEPS = 60
NEARLY_REPEATED = 0.05
EDGE = 0.05  # share of the effective number of rows by which ranks keep away from it
TOLERANCE = 1e-7  # in ranks
NODES, WEIGHTS = (v / 2 for v in np.polynomial.legendre.leggauss(24))
NODES = NODES + 0.5
BESIDE = 1e-5  # in units of z: how far apart two points stand for one where a formula is 0 / 0


@dataclass(frozen=True)
class Form:
    """H(g) = f g + (1 + q g^2 / k)^k."""

    f: float
    q: float
    k: float

    def stretch(self, g: Complex) -> tuple[Complex, Complex]:
        """H and dH / dg."""
        base = 1 + self.q / self.k * g**2
        power = base**self.k
        return self.f * g + power, self.f + 2 * self.q * g * power / base

    def potential(self, g: Complex) -> Complex:
        """Integral from 0 to g of (1 + g) d log H."""
        at = g[:, None] * NODES
        h, slope = self.stretch(at)
        return np.asarray(g * (((1 + at) * slope / h) @ WEIGHTS))


@dataclass(frozen=True)
class RowCorrelation:
    """How rows are correlated: m_2 = tr R^2 / n and m_3 = tr R^3 / n of their correlation R.

    square: m_2 >= 1; n / m_2 is the effective number of rows.
    cube: m_3 >= m_2^2; equal to it where rows are repeated.
    square_error: standard error of `square`, 0 where it is known.
    bend_error: that of `bend`.
    """

    square: float = 1.0
    cube: float = 1.0
    square_error: float = 0.0
    bend_error: float = 0.0

    @property
    def bend(self) -> float:
        """q / (m_2^2 - 1): 0 for repeated rows, 1/2 for an autoregression; 0 for none."""
        if self.independent:
            return 0.0
        return min(0.5, (self.cube - self.square**2) / (self.square**2 - 1))

    def moved(self, square: float, bend: float) -> RowCorrelation:
        """A correlation with another `square` and `bend`, taken to be known."""
        return RowCorrelation(square, square**2 + bend * (square**2 - 1))

    def doubted(self) -> list[RowCorrelation]:
        """This correlation, one standard error off in either number; none where it is known."""
        found = []
        if self.square_error:
            found.append(self.moved(self.square + self.square_error, self.bend))
        if self.bend_error:
            up = self.bend + self.bend_error <= 0.5
            bend = self.bend + (self.bend_error if up else -self.bend_error)
            found.append(self.moved(self.square, max(0.0, bend)))
        return found

    def ranks(self, dof: float) -> int:
        """How many eigenvalues are safely more than what repeated rows would leave empty."""
        if self.independent:
            return int(dof)
        return int(dof / max(self.square * (1 + EDGE), self.square + 3 * self.square_error))

    @property
    def independent(self) -> bool:
        """Whether there is no correlation."""
        return self.square <= 1

    @property
    def repeated(self) -> bool:
        """Whether it is as if rows were repeated: then only their effective number counts."""
        return self.bend * (self.square + 1) <= NEARLY_REPEATED

    def form(self) -> Form:
        """The law H of rows that are correlated and not repeated."""
        q = self.bend * (self.square**2 - 1)
        low, high = 0.5, 1.0
        if q <= self.square - 1:
            low = 1.0
        while high - low > 1e-9:
            k = (low + high) / 2
            low, high = (k, high) if (1 + q / k) ** k < self.square else (low, k)
        return Form(self.square, q, high)

    def share(self, t: float) -> RowCorrelation:
        """A correlation on the way from independent rows, t = 0, to this one, t = 1."""
        return self.moved(1 + t * (self.square - 1), self.bend)


INDEPENDENT = RowCorrelation()


@dataclass(frozen=True)
class CurvePoints:
    """[nodes] points of the curve: w, z(w), g(w), H = z / w and dz / dw."""

    w: Complex
    z: Complex
    g: Complex
    stretch: Complex
    slope: Complex


def transform(w: Complex, population: Array, dof: float, form: Form) -> CurvePoints:
    """z(w) and what belongs to it."""
    inverse = 1 / (w[:, None] - population)
    g = inverse @ population / dof
    h, slope = form.stretch(g)
    return CurvePoints(w, w * h, g, h, h - w * slope * (inverse**2 @ population / dof))


def counts_above(points: CurvePoints, population: Array, dof: float, form: Form) -> Array:
    """Sample eigenvalues above each point."""
    w = points.w
    phase = np.angle(w[:, None] - population).sum(axis=1)
    phase += (dof - len(population)) * np.angle(w)
    return np.asarray((phase + dof * form.potential(points.g).imag) / np.pi)


def solve(
    population: Array, dof: float, ranks: NDArray[np.int64], start: Complex, form: Form
) -> CurvePoints | None:
    """The points of the curve with rank - 1/2 sample eigenvalues above; None if Newton fails."""
    w = start.copy()
    target = ranks - 0.5
    points = transform(w, population, dof, form)
    missing = target - counts_above(points, population, dof, form)
    for _ in range(STEPS):
        pull = dof * (1 + points.g) / points.z  # d (log det) / dz
        off = points.z.imag
        along = (np.pi * missing + off * pull.real) / pull.imag
        step = (along - 1j * off) / points.slope
        step *= np.minimum(1.0, 0.5 * w.imag / np.maximum(np.abs(step), 1e-300))
        w = w + step
        points = transform(w, population, dof, form)
        missing = target - counts_above(points, population, dof, form)
        density = dof * np.abs(points.g.imag) / (np.pi * np.abs(points.z))
        worst = np.maximum(np.abs(missing), np.abs(points.z.imag) * density)
        if not np.isfinite(worst).all():
            return None
        if worst.max() < TOLERANCE:
            return points if (points.z.real > 0).all() else None
    return None


def kernel(points: CurvePoints, population: Array, dof: float, form: Form) -> Array:
    """What correlated rows add to the log of |w_x - conj w_y| / |w_x - w_y|, [nodes, nodes].

    The covariance of counts is 1/pi^2 log |(1 - c(x, y)) / (1 - c(x, conj y))| with
    1 - c(x, y) = 1 + (w_x g_x - w_y g_y) (H_x - H_y) / ((w_x - w_y) (u_x - u_y) H_x H_y),
    u = g / H: the kernel of the central limit theorem for separable covariances.
    """
    beside = transform(points.w + BESIDE * points.z.real / points.slope, population, dof, form)

    def one_less(x: CurvePoints, y: CurvePoints, *, conjugate: bool) -> Complex:
        def of(values: Complex) -> Complex:
            return values.conj() if conjugate else values

        wx, wy = x.w[:, None], of(y.w)[None]
        gx, gy = x.g[:, None], of(y.g)[None]
        hx, hy = x.stretch[:, None], of(y.stretch)[None]
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = (wx * gx - wy * gy) / (wx - wy)
            return np.asarray(1 + moved * (hx - hy) / ((gx / hx - gy / hy) * hx * hy))

    def extra(x: CurvePoints, y: CurvePoints) -> Array:
        plain = one_less(x, y, conjugate=False) * (x.w[:, None] - y.w)
        crossed = one_less(x, y, conjugate=True) * (x.w[:, None] - y.w.conj())
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.log(np.abs(plain / crossed)))

    found = extra(points, points)
    np.fill_diagonal(found, extra(points, beside).diagonal())
    return (found + found.T) / 2
