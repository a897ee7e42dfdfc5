"""Fit a power law lambda_i ~ i^-exponent to the eigenvalues of a sample covariance.

Three published regressions are here as their authors use them, and one estimator that can be
trusted at any number of samples. A regression of log eigenvalue on log rank describes the sample;
with n samples of width d its exponent misses the population's by tenths unless n is far above d,
and its own confidence interval knows nothing of that. "debiased" instead asks which population
power law has the observed spectrum as its expected *sample* spectrum. The expectation, its
derivative and the covariance of the eigenvalues come from random matrix theory (see
`sample_spectrum`), so the interval is one for the population, and no simulation is needed.
`benchmarks/exponent.py` measures bias, spread, coverage and the test for breaks.

Rows that are correlated, or whose *norm* is heavy-tailed (elliptical, such as Student-t), spread
the sample spectrum as fewer rows would. No function of the eigenvalues alone can tell that from
another population, so it must be said by `rows`, which `rows.groups` measures in the data. Heavy
tails of independent features only widen the scatter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from operator import index
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from polycode_plugins.errors import DataError, PolycodeError, near
from polycode_plugins.metrics.processes import apart
from polycode_plugins.metrics.spectrum.law.bins import CELLS, Binned, binned
from polycode_plugins.metrics.spectrum.law.breaks import find_break
from polycode_plugins.metrics.spectrum.law.domain import Curve, curve, domain
from polycode_plugins.metrics.spectrum.law.levels import Array
from polycode_plugins.metrics.spectrum.law.matching import Matched, match
from polycode_plugins.metrics.spectrum.law.power_law_result import Break, PowerLawFit, Spread
from polycode_plugins.metrics.spectrum.rows.correlation import INDEPENDENT, RowCorrelation
from polycode_plugins.metrics.spectrum.summaries import checked_eigenvalues, checked_samples

__all__ = ["DEFAULT_RANKS", "Break", "FitName", "PowerLawFit", "fit_power_law"]

FitName = Literal["debiased", "huber", "stringer", "alpha-req"]

#: Ranks of each fit where none are asked for. The paper states none for Huber regression.
DEFAULT_RANKS: Mapping[str, tuple[int, int]] = {
    "debiased": (11, 500),
    "huber": (11, 500),
    "stringer": (11, 500),
    "alpha-req": (4, 100),
}
MIN_RANKS = 5
CORRELATED_CELLS = 3
SIGNIFICANT = 0.05
SIGNIFICANT_SCATTER = 0.01
#: An interval from 0 to beyond this holds all exponents that spectra have, and says nothing.
UNTOLD = 2.0
ROUNDING = 16 * float(np.finfo(np.float64).eps)  # per unit of width


def fit_power_law(
    eigenvalues: ArrayLike,
    n_samples: float,
    *,
    width: int | None = None,
    fit: FitName = "debiased",
    ranks: tuple[int, int | None] | None = None,
    epsilon: float = 1.35,
    seed: int = 0,
    rows: RowCorrelation = INDEPENDENT,
    widest: RowCorrelation | None = None,
    untested: str | None = None,
) -> PowerLawFit:
    """Fit a power law to the spectrum of a centred sample covariance.

    Args:
        eigenvalues: [k] descending, of the covariance (any scale); all of them, or all that are not
            zero, or the leading ones.
        n_samples: samples the covariance was computed from. An effective number may stand for it
            where there is no `rows`, and does as well far above the width.
        width: features per sample; default: the number of eigenvalues.
        fit: "debiased"; "huber", Huber regression as in Marshall & Kirchner 2024 (scikit-learn's
            HuberRegressor); "stringer", least squares with weights 1/rank over ranks 11-500
            (Stringer et al. 2019); "alpha-req", least squares over ranks 4-100 (Agrawal et al.
            2022).
        ranks: first and last rank, from 1; None for the last means all. Default: the fit's own.
            Ranks beyond min(width, n_samples - 1), and those whose eigenvalue may be rounding (at
            most width * 3.6e-15 of the largest), are left out; the result says which were used.
        epsilon: of the Huber loss; the paper does not state it.
        seed: of the null distribution of the test for a break.
        rows: how the samples are correlated with one another; independent unless given. Ranks end
            a little below their effective number.
        widest: another correlation with which the interval is to hold as well, such as one that
            takes scatter for heavy tails.
        untested: why the samples cannot tell one power law from others, if they cannot. It is also
            said, and there is no interval, where `rows` is too doubtful for so few.

    Raises:
        DataError: for eigenvalues no covariance has, or fewer than 5 usable ranks.
        PolycodeError: for an unknown fit.
    """
    if fit not in get_args(FitName):
        raise PolycodeError(
            f"there is no fit {fit!r}{near(str(fit), get_args(FitName))} known are "
            f"{', '.join(get_args(FitName))}"
        )
    values = checked_eigenvalues(eigenvalues)
    dof = checked_samples(n_samples, 3) - 1
    width = len(values) if width is None else int(width)
    if len(values) > width:
        raise DataError(f"{len(values)} eigenvalues are more than the width {width}; correct it")
    possible = min(width, int(dof))
    if len(values) < possible:
        raise DataError(
            f"a covariance of width {width} from {n_samples:g} samples has {possible} eigenvalues "
            f"and {len(values)} came; pass all of them, zeros included"
        )
    scale = float(np.log(values[0]))
    values = values / values[0]
    values = values[values > ROUNDING * width]
    # Metrics of one site ask for the same fit; it is worked out once.
    known = _fitted(
        _Question(
            values.tobytes(),
            float(n_samples),
            width,
            fit,
            ranks or DEFAULT_RANKS[fit],
            float(epsilon),
            int(seed),
            rows,
            rows if widest is None else widest,
        )
    )
    if (unsure := rows.unsure(n_samples, width)) is not None:
        # Neither can the interval hold, which takes that correlation for nearly known.
        known = replace(known, interval=None, spreads=())
        untested = untested or unsure
    if untested is not None:
        known = replace(known, untested=untested, broken=False, irregular=False, evidence=None)
    return replace(known, intercept=known.intercept + scale, n_samples=n_samples)


@dataclass(frozen=True)
class _Question:
    """What a fit depends on; values: the bytes of the eigenvalues above rounding, scaled."""

    values: bytes
    n_samples: float
    width: int
    fit: FitName
    ranks: tuple[int, int | None]
    epsilon: float
    seed: int
    rows: RowCorrelation
    widest: RowCorrelation


@lru_cache(maxsize=256)
def _fitted(asked: _Question) -> PowerLawFit:
    """The fit, with the largest eigenvalue as unit."""
    return _found(asked)


@apart
def _found(asked: _Question) -> PowerLawFit:
    values, width, rows, fit = np.frombuffer(asked.values), asked.width, asked.rows, asked.fit
    n_samples, seed = asked.n_samples, asked.seed
    dof = n_samples - 1
    possible = min(width, int(dof))
    usable = min(len(values), possible, rows.ranks(dof, width))
    worth = "" if rows.independent else f" (worth {n_samples / rows.squares(width).mean():.3g})"
    known = f"{n_samples:g} samples{worth} of width {width}"
    # Published regressions take the ranks they are given; only the test for breaks stops short.
    reach = usable if fit == "debiased" else min(len(values), possible)
    first, last = _usable(asked.ranks, reach, known)

    # Eigenvalues that end well above rounding end in the population too; others sink into it.
    shown = min(possible, rows.ranks(dof, width))
    ends = len(values) < shown and values[-1] > 100 * ROUNDING * width
    spanned = len(values) if ends else width
    sample = _Sample(values, usable, dof, spanned, rows)
    tested = sample.tested(first, min(last, usable), seed, needed=fit == "debiased")
    x, y = np.log(np.arange(first, last + 1)), np.log(values[first - 1 : last])
    slope, intercept, r_squared = _line(x, y, np.ones(len(x)))
    shared: dict[str, Any] = {
        "fit": fit,
        "ranks": (first, last),
        "dispersion": None,
        "n_samples": n_samples,
        "width": width,
        "broken": False,
    }
    if sample.curve is not None:
        shared |= {
            "domain": domain(sample.curve, values, seed),
            "deviation": sample.curve.deviation(first, min(last, usable)),
        }
    if tested is not None:
        data, single, evidence = tested
        shared |= {
            "dispersion": single.dispersion,
            "broken": _is_broken(evidence),
            "irregular": _chance(single) < SIGNIFICANT_SCATTER,
            "evidence": evidence,
        }
    if fit == "debiased":
        assert tested is not None
        bins = len(data.sizes)
        spreads: tuple[Spread, ...] | None = (_spread(single),)
        if asked.widest != rows:
            spreads = _widened(single, asked, first, last, spanned)
        shared["irregular"] = shared["irregular"] or spreads is None
        fitted = PowerLawFit(
            exponent=float(single.parameters[1]),
            interval=spreads[0].interval(0.95) if spreads is not None else None,
            spreads=spreads or (),
            r_squared=_r_squared(data.values[:bins], single.fitted[:bins], data.sizes),
            intercept=intercept,
            line_slope=slope,
            tail_exponent=float(single.parameters[2]) if data.tail else None,
            **shared,
        )
        return fitted.at_level(0.95)
    if fit == "stringer":
        slope, intercept, r_squared = _line(x, y, 1 / np.arange(first, last + 1))
    if fit == "huber":
        slope, intercept = _huber(x, y, asked.epsilon)
        r_squared = _r_squared(y, intercept + slope * x, np.ones(len(x)))
    return PowerLawFit(
        exponent=-slope,
        interval=None,
        r_squared=r_squared,
        intercept=intercept,
        line_slope=slope,
        epsilon=asked.epsilon if fit == "huber" else None,
        **shared,
    )


def _widened(
    near: Matched, asked: _Question, first: int, last: int, width: int
) -> tuple[Spread, ...] | None:
    """Spreads that also hold with the widest correlation; None where it leaves too few, or an
    interval as broad as all exponents that spectra have."""
    values, dof = np.frombuffer(asked.values), asked.n_samples - 1
    usable = min(len(values), asked.width, int(dof), asked.widest.ranks(dof, asked.width))
    if usable - first + 1 < MIN_RANKS:
        return None
    other = _Sample(values, usable, dof, width, asked.widest)
    try:
        single = other.match(first, min(last, usable), near)[1]
    except DataError:
        return None
    if not single.settled:
        found = other.tested(first, min(last, usable), asked.seed, needed=False)
        if found is None:
            return None
        single = found[1]
    low, high = (widest := _spread(single)).interval(0.95)
    return None if low == 0 and high > UNTOLD else (_spread(near), widest)


def checked_ranks(ranks: Any) -> tuple[int, int | None]:
    """`ranks` as (first, last), where they are a range.

    Raises:
        DataError: for anything but two whole numbers from 1, or one and None for all the rest.
    """
    try:
        first, last = ranks
        first, last = index(first), None if last is None else index(last)
    except (TypeError, ValueError):
        first, last = 0, None
    if first < 1 or (last is not None and last < first):
        raise DataError(
            f"ranks {ranks} are no range; give first and last rank, counted from 1, or None for "
            "all that follow the first"
        )
    return first, last


def _usable(ranks: tuple[int, int | None], available: int, samples: str) -> tuple[int, int]:
    """The ranks asked for, as far as there are any of these samples."""
    first, last = checked_ranks(ranks)
    last = available if last is None else min(last, available)
    if last - first + 1 >= MIN_RANKS:
        return int(first), int(last)
    why = (
        f"ranks {first}-{ranks[1] or 'all'} leave {max(0, last - first + 1)} of the {available} "
        f"eigenvalues above rounding that {samples} have, and a fit needs {MIN_RANKS}"
    )
    if available < MIN_RANKS:
        raise DataError(f"{why}; give more samples, or leave the site out")
    start = min(first, max(1, available // 10), available - MIN_RANKS + 1)
    raise DataError(f"{why}; pass for example ranks=({start}, {available})")


@dataclass(frozen=True, eq=False)
class _Sample:
    """A sample spectrum, scaled, of which the first `usable` ranks are more than rounding."""

    values: Array
    usable: int
    dof: float
    width: int
    rows: RowCorrelation

    @cached_property
    def curve(self) -> Curve | None:
        """The population's spectrum; None where it is not found."""
        if self.usable < MIN_RANKS:
            return None
        try:
            return curve(self.values, self.usable, self.dof, self.width, self.rows)
        except (DataError, np.linalg.LinAlgError):
            return None

    def match(self, first: int, last: int, near: Matched | None = None) -> tuple[Binned, Matched]:
        """The population power law over these ranks, searched from the regression of the sample."""
        x, y = np.log(np.arange(first, last + 1)), np.log(self.values[first - 1 : last])
        # Correlated rows spread eigenvalues wider: fewer nodes tell as much.
        cells = CELLS if self.rows.independent else CORRELATED_CELLS
        data = binned(self.values, first, last, self.usable, cells=cells)
        start = -_line(x, y, np.ones(len(x)))[0]
        if near is not None or self.curve is None:
            return data, match(data, self.width, self.dof, start, self.rows, near)
        known = self.curve.line, self.curve.start
        return data, match(data, self.width, self.dof, start, self.rows, None, *known)

    def tested(
        self, first: int, last: int, seed: int, *, needed: bool
    ) -> tuple[Binned, Matched, Break | None] | None:
        """The matched law and the evidence of a break.

        Where none is found: None, or DataError if it is `needed`.
        """
        try:
            if last - first + 1 < MIN_RANKS:
                raise DataError(f"ranks {first}-{last} are too few to match")
            data, single = self.match(first, last)
            evidence = self.evidence(data, single, seed)
            if not (single.settled or _is_broken(evidence)):
                raise DataError(
                    "no population power law has a sample spectrum like this one over ranks "
                    f"{first}-{last}; look at the eigenvalues, and choose `ranks` over which they "
                    "fall evenly"
                )
        except DataError:
            if needed:
                raise
            return None
        return data, single, evidence

    def slope(self, first: int, last: int) -> float | None:
        """The population's slope over part of the ranks; None where it is not found."""
        return None if self.curve is None else self.curve.slope(first, last)

    def evidence(self, data: Binned, single: Matched, seed: int) -> Break | None:
        """The best break, with the slopes of the population before and after it."""
        found = find_break(data, single, self.width, seed)
        if found is None:
            return None
        if found.p_value >= SIGNIFICANT:
            return Break(found.rank, None, None, found.statistic, found.p_value)
        first, last = int(data.edges[0]), int(data.edges[-1]) - 1
        return Break(
            rank=found.rank,
            slope_before=self.slope(first, found.rank - 1),
            slope_after=self.slope(found.rank, last),
            statistic=found.statistic,
            p_value=found.p_value,
        )


def _is_broken(evidence: Break | None) -> bool:
    return evidence is not None and evidence.p_value < SIGNIFICANT


def _chance(single: Matched) -> float:
    """Chance that Gaussian rows scatter as much around the curve."""
    from scipy.special import chdtrc

    return float(chdtrc(single.freedom, single.freedom * single.dispersion))


def _spread(single: Matched) -> Spread:
    """What the intervals of the exponent are made of."""
    return Spread(
        exponent=float(single.parameters[1]),
        squared=float(single.squared),
        error=float(np.sqrt(single.covariance[1, 1])),
        freedom=single.freedom,
        dispersion=float(single.dispersion),
    )


def _line(x: Array, y: Array, weights: Array) -> tuple[float, float, float]:
    """Slope, intercept and R^2 of weighted least squares."""
    centre = np.average(x, weights=weights)
    slope = float(np.sum(weights * (x - centre) * y) / np.sum(weights * (x - centre) ** 2))
    intercept = float(np.average(y, weights=weights) - slope * centre)
    return slope, intercept, _r_squared(y, intercept + slope * x, weights)


def _huber(x: Array, y: Array, epsilon: float) -> tuple[float, float]:
    """Slope and intercept of scikit-learn's Huber regression."""
    from sklearn.linear_model import HuberRegressor

    if not epsilon >= 1:
        raise DataError(f"epsilon of the Huber loss must be at least 1 and is {epsilon}")
    model = HuberRegressor(epsilon=epsilon, max_iter=10_000).fit(x[:, None], y)
    return float(model.coef_[0]), float(model.intercept_)


def _r_squared(y: Array, fitted: Array, weights: Array) -> float:
    """1 - residual / total sum of squares; 1 for a fit without error to a flat spectrum."""
    total = float(np.sum(weights * (y - np.average(y, weights=weights)) ** 2))
    residual = float(np.sum(weights * (y - fitted) ** 2))
    return 1.0 if residual == 0 else (1 - residual / total if total > 0 else 0.0)
