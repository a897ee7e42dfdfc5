"""How the rows of a sample are correlated with one another, direction by direction.

The tokens of a text are correlated, and not alike in all directions: what is common to a document
and what lasts over many tokens tends to lie in the strong ones. The correlation R_j of the rows in
the population's direction of rank j is described by its spectrum over frequencies u of (0, 1),

    f_j(u) = (1 - c_j) (1 - a_j^2) / (1 + a_j^2 - 2 a_j cos pi u) + c_j L 1[u < 1/L],

an autoregression of lag-one correlation a_j beside a share c_j of the variance that is common to
the L rows of a document, both changing with the logarithm of the rank; then all rows come `copies`
times each. tr R_i R_j / n, the variance of an element of the sample covariance, is the integral of
f_i f_j. `dependence` finds such a description in data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

GROUPS = 64

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

LOWEST_LAG, HIGHEST_LAG = -0.6, 0.995
MOST_COMMON = 0.98
PLACES, SHARES = np.polynomial.legendre.leggauss(8)  # in each part of the frequencies
TAIL_NODES = 6  # of the distribution of the rows' norms
EDGE = 0.05  # share of the effective number of rows by which ranks keep away from it
NEARLY_REPEATED = 0.05
FEW = 0.75  # of the width: rows that must be left in each direction to tell how they differ in it
ALIKE = 1.25  # times as much as copies alone
REPEATED = 1e-3  # correlations below which only the copies count


@dataclass(frozen=True)
class Form:
    """z / w = H(g) = f g + (1 + q g^2 / k)^k for rows that are correlated alike in all directions.

    w, z and g = 1/n sum_j tau_j / (w - tau_j) as in `sample_spectrum`. Two moments of R fix H to
    second order, H = 1 + m_2 g + (m_3 - m_2^2) g^2 + .., since z = w (1 + g) / S_R(g) with the
    S-transform of R (Voiculescu 1987). This form is exact for repeated rows, an autoregression of
    order one (k = 1/2) and a Marchenko-Pastur spectrum (k = 1). Below k = 1/2 it has a branch
    point where the curve may pass, so that q is held to its value there, (m_2^2 - 1) / 2.
    """

    f: float
    q: float
    k: float

    def stretch(self, g: Complex) -> tuple[Complex, Complex]:
        """H and dH / dg."""
        base = 1 + self.q / self.k * g**2
        power = base**self.k
        return self.f * g + power, self.f + 2 * self.q * g * power / base


@dataclass(frozen=True)
class RowCorrelation:
    """Correlation of rows by direction; independent unless told otherwise.

    knots: ranks at which lag and common are given; between them they are linear in log rank and
        beyond them constant. lag, common: a and c above, at the knots.
    copies: how often each row comes. length: rows of a document, L.
    tails: second moment of the squared norm of rows over its square; 1 for Gaussian rows.
    doubts: independent errors of the description, each as one standard error of (lag.., common..,
        log copies, log length); none where it is known.
    """

    knots: tuple[float, ...] = (1.0,)
    lag: tuple[float, ...] = (0.0,)
    common: tuple[float, ...] = (0.0,)
    copies: float = 1.0
    length: float = 1.0
    tails: float = 1.0
    doubts: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def from_moments(cls, square: float, cube: float, square_error: float = 0.0) -> RowCorrelation:
        """A correlation alike in all directions with tr R^2 / n and tr R^3 / n as given.

        From rows that come `square` times each (cube = square^2), over autoregressions
        (cube = (3 square^2 - 1) / 2), to what is common to documents (larger cubes).
        square_error: standard error of `square`.
        """
        if square_error:
            found = cls.from_moments(square, cube)
            ratio = (square + square_error) / square
            more = cls.from_moments(square * ratio, cube * ratio**2)
            shift = more.parameters - found.parameters
            return replace(found, doubts=(tuple(shift.tolist()),))
        if square <= 1:
            return cls()
        bend = max(0.0, (cube - square**2) / (square**2 - 1))
        if bend <= 0.5:
            # m copies of an autoregression with a second moment s: square = m s and
            # bend (square^2 - 1) = m^2 (s^2 - 1) / 2.
            copies = np.sqrt(square**2 - 2 * bend * (square**2 - 1))
            single = square / copies
            lag = np.sqrt((single - 1) / (single + 1))
            return cls(lag=(float(lag),), copies=float(copies))
        spread = cube - 3 * square + 2
        high = (spread + np.sqrt(spread**2 + 4 * (square - 1) ** 3)) / (2 * (square - 1))
        # The atoms 1 - c and 1 - c + c L, with weights 1 - 1/L and 1/L.
        common = (square - 1) / high
        return cls(common=(float(common),), length=float(1 + high / common))

    @property
    def independent(self) -> bool:
        """Whether there is no correlation."""
        return self.repeated and self.copies == 1

    @property
    def repeated(self) -> bool:
        """Whether rows are independent but for their copies: then only their number counts."""
        alone = max(np.abs(self.lag)) < REPEATED
        known = self.tails == 1 and not self.doubts
        return bool(alone and max(self.common) < REPEATED and known)

    @property
    def parameters(self) -> Array:
        """(lag.., common.., log copies, log length)."""
        rest = np.log([self.copies, self.length])
        return np.concatenate([self.lag, self.common, rest])

    def moved(self, shift: Array) -> RowCorrelation:
        """The correlation with other parameters, held to where they have a meaning."""
        values = self.parameters + shift
        count = len(self.knots)
        lag = np.clip(values[:count], LOWEST_LAG, HIGHEST_LAG)
        common = np.clip(values[count : 2 * count], 0.0, MOST_COMMON)
        copies, length = np.exp(np.maximum(values[2 * count :], 0.0))
        return replace(
            self,
            lag=tuple(lag.tolist()),
            common=tuple(common.tolist()),
            copies=float(copies),
            length=float(length),
            doubts=(),
        )

    @cached_property
    def doubted(self) -> tuple[RowCorrelation, ...]:
        """This correlation, one standard error off in each of its doubts."""
        return tuple(self.moved(np.asarray(shift)) for shift in self.doubts)

    def density(self, ranks: Array) -> tuple[Array, Array]:
        """f [ranks, frequencies] and the weights [frequencies] of a quadrature; f has mean 1."""
        at, known = np.log(ranks), np.log(self.knots)
        lag, common = (np.interp(at, known, v)[:, None] for v in (self.lag, self.common))
        place, weights = _frequencies(self.length)
        if max(np.abs(self.lag)) < REPEATED and max(self.common) < REPEATED:
            place, weights = np.array([0.5]), np.ones(1)
        # The rounded top of an autoregression is as wide as 1 - a; nodes are dense towards 0.
        regressed = (1 - lag**2) / (1 + lag**2 - 2 * lag * np.cos(np.pi * place))
        regressed /= (regressed @ weights)[:, None]
        shared = self.length * (place < 1 / self.length)
        found = (1 - common) * regressed + common * shared
        if self.tails > 1:
            norms, chances = _norms(self.tails)
            found = (found[:, :, None] * norms).reshape(len(found), -1)
            weights = np.outer(weights, chances).ravel()
        if self.copies > 1:
            found = np.hstack([found * self.copies, np.zeros((len(found), 1))])
            weights = np.append(weights / self.copies, 1 - 1 / self.copies)
        return found / (found @ weights)[:, None], weights

    def squares(self, width: int) -> Array:
        """[width] tr R_j^2 / n of every rank: n over it are the rows its direction is worth."""
        return _squares(self, width)

    @cached_property
    def _moments(self) -> tuple[float, float]:
        if self.repeated:
            return self.copies, self.copies**2
        found, weights = self.density(np.asarray(self.knots))
        even = found.mean(axis=0)
        return float(even**2 @ weights), float(even**3 @ weights)

    @property
    def square(self) -> float:
        """tr R_i R_j / n, averaged over the knots."""
        return self._moments[0]

    @property
    def cube(self) -> float:
        """tr R_i R_j R_k / n, averaged over the knots."""
        return self._moments[1]

    @cached_property
    def square_error(self) -> float:
        """Standard error of `square`."""
        return float(np.sqrt(sum((one.square - self.square) ** 2 for one in self.doubted)))

    @property
    def bend(self) -> float:
        """(cube - square^2) / (square^2 - 1), at most 1/2: 0 for repeated rows."""
        if self.square <= 1:
            return 0.0
        return float(np.clip((self.cube - self.square**2) / (self.square**2 - 1), 0.0, 0.5))

    @property
    def nearly_repeated(self) -> bool:
        """Whether only the effective number of rows counts, if all directions are alike."""
        return self.bend * (self.square + 1) <= NEARLY_REPEATED

    def unsure(self, n_samples: float, width: int) -> str | None:
        """Why rows are too few to say how a correlation that was measured changes with the
        direction, and the spectrum with it; None if they are not, or if it is known.

        A few groups and a sketch see weak directions blurred with others. Far above the width that
        is of no consequence, and of none for copies, which are alike in all directions.
        """
        if not self.doubts:
            return None
        found, weights = self.density(np.asarray(self.knots))
        squares = np.sort(found**2 @ weights)
        most = float(squares[max(-2, -len(squares))])  # one knot may be off by chance
        if most < ALIKE * self.copies or n_samples / most >= FEW * width:
            return None
        return (
            f"{n_samples:g} samples are worth about {n_samples / most:.0f} independent ones in "
            f"some of {width} directions, too few to measure how their dependence changes with the "
            "direction; give more documents"
        )

    def form(self) -> Form:
        """The law H of the mean over the knots."""
        square, bend = self.square, self.bend
        q = bend * (square**2 - 1)
        low, high = 0.5, 1.0
        if q <= square - 1:
            low = 1.0
        while high - low > 1e-9:
            k = (low + high) / 2
            low, high = (k, high) if (1 + q / k) ** k < square else (low, k)
        return Form(square, q, high)

    def mean_square(self, weights: Array) -> float:
        """tr R_i R_j / n averaged over pairs of ranks with these weights [width]."""
        if self.independent:
            return 1.0
        found, frequencies = self.density(np.arange(1.0, len(weights) + 1))
        mixed = weights @ found / weights.sum()
        return float(mixed**2 @ frequencies)

    def ranks(self, dof: float, width: int) -> int:
        """How many eigenvalues are safely more than what repeated rows would leave empty."""
        if self.independent:
            return int(dof)
        needed = np.cumsum(np.maximum(self.squares(width), 1.0)) * (1 + EDGE)
        return int(np.sum(needed <= dof))


INDEPENDENT = RowCorrelation()


@lru_cache(maxsize=64)
def _squares(rows: RowCorrelation, width: int) -> Array:
    found, weights = rows.density(np.arange(1.0, width + 1))
    return np.asarray(found**2 @ weights)


@lru_cache(maxsize=64)
def _frequencies(length: float) -> tuple[Array, Array]:
    """Nodes and weights of a quadrature over (0, 1), with 1/length where one part of it ends."""
    cuts = [0.0]
    if length > 1.5:
        cuts.append(1 / length)
    while (cuts[-1] or 0.02) * 4 < 1:
        cuts.append((cuts[-1] or 0.02) * 4)
    cuts.append(1.0)
    edges = np.array(cuts)
    sizes = np.diff(edges)
    at = edges[:-1, None] + sizes[:, None] * (PLACES + 1) / 2
    return at.ravel(), (sizes[:, None] * SHARES / 2).ravel()


@lru_cache(maxsize=64)
def _norms(tails: float) -> tuple[Array, Array]:
    """Squared norms of rows, a gamma distribution with mean 1, and their chances."""
    from scipy.special import roots_genlaguerre

    shape = 1 / (tails - 1)
    nodes, weights = roots_genlaguerre(TAIL_NODES, shape - 1)
    return nodes / shape, weights / weights.sum()
