"""Where the truths of the reference cases come from: closed forms, quadrature and brute force.

Nothing here imports what is judged by it. Tests recompute the stored truths from these functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.testing.reference.catalogue import Case
from polycode_plugins.testing.reference.generators import RANGE

Floats = NDArray[np.float64]

#: Width of the cells that stand for continuous values, and of the quadrature [standard deviations].
FINE = 0.01


@cache
def distorted_gaussian_information(correlation: float, x: str, y: str) -> float:
    """I(x; y) [nats] of a Gaussian pair after the distortions named, by quadrature over x.

    Both sides are cut into the cells that their distortion makes of the line; continuous parts into
    cells of `FINE`, which costs less than 3e-5 nats.
    """
    from scipy.special import ndtr

    middle = np.arange(-8, 8, FINE) + FINE / 2
    weight = np.exp(-(middle**2) / 2)
    weight /= weight.sum()
    inner = (_edges(y)[None] - correlation * middle[:, None]) / math.sqrt(1 - correlation**2)
    given_x = np.diff(ndtr(inner), axis=1)
    row = np.searchsorted(_edges(x), middle) - 1
    joint = np.zeros((len(_edges(x)) - 1, given_x.shape[1]))
    np.add.at(joint, row, weight[:, None] * given_x)
    return discrete_information(joint)


def discrete_information(joint: Floats) -> float:
    """I [nats] of a table of probabilities."""
    product = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / product[some])).sum())


def _edges(distortion: str) -> Floats:
    """Where the cells of a distortion begin and end on the line."""
    name, _, number = distortion.partition(" ")
    if name == "relu":
        inner = np.arange(0, 8, FINE)
    elif name == "rounded":
        step = 10.0 ** -int(number)
        inner = (np.arange(-round(8 / step), round(8 / step)) + 0.5) * step
    elif name == "quantised":
        inner = np.linspace(-RANGE, RANGE, 2 ** int(number) + 1)[1:-1]
    else:  # continuous, or bfloat16, whose steps are far below the noise
        inner = np.arange(-8, 8, FINE)
    return np.concatenate([[-np.inf], inner, [np.inf]])


def mutual_information(case: Case) -> float:
    """[nats] of a pair that a generator draws."""
    p = dict(case.parameters)
    if case.generator == "correlated":
        given = (p["correlation"], p.get("x", ""), p.get("y", ""))
        plain = given[1:] == ("", "") or p["correlation"] == 0
        one = _gaussian(p["correlation"]) if plain else distorted_gaussian_information(*given)
        return float(p["width"] * one)
    if case.generator == "labels":
        share = np.full((p["values"], p["values"]), p["noise"] / p["values"] ** 2)
        return discrete_information(share + np.eye(p["values"]) * (1 - p["noise"]) / p["values"])
    if case.generator == "erased":  # (1 - rate) H(x), Cover & Thomas 2006, section 7.1.5
        return float((1 - p["rate"]) * math.log(p["values"]))
    if case.generator == "additive":  # h(y) - h(y|x): a trapezium less a rectangle, width <= 1/2
        return float(p["half_width"] - math.log(2 * p["half_width"]))
    return _student(p["degrees"])


def _gaussian(correlation: float) -> float:
    return -0.5 * math.log1p(-(correlation**2))


def _student(degrees: float) -> float:
    """h(x) + h(y) - h(x, y) of the bivariate t, by quadrature of -E ln p over the radius."""
    from scipy.integrate import quad
    from scipy.stats import t

    v = degrees
    one = float(t(v).entropy())
    # Joint density (1 + r^2/v)^-(v/2 + 1) / 2 pi; that of the radius r is r times 2 pi that.
    both = quad(
        lambda r: (
            r
            * (1 + r * r / v) ** (-v / 2 - 1)
            * (math.log(2 * math.pi) + (v / 2 + 1) * math.log1p(r * r / v))
        ),
        0,
        math.inf,
        limit=500,
    )[0]
    return float(2 * one - both)


def exponent(case: Case) -> float:
    """As planted."""
    return float(case.parameters["exponent"])


def participation_ratio(case: Case) -> float:
    """(sum lambda)^2 / sum lambda^2 of the population."""
    law = _law(case)
    return float(law.sum() ** 2 / (law**2).sum())


def effective_rank(case: Case) -> float:
    """exp of the entropy of the population's normalised singular values, sqrt(lambda)."""
    share = np.sqrt(_law(case))
    share /= share.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _law(case: Case) -> Floats:
    return np.asarray(
        np.arange(1, case.parameters["width"] + 1) ** -float(case.parameters["exponent"])
    )


def expected_action(case: Case) -> float:
    """(k / 2m) times the squared length of all steps, step by step; of a circle in closed form."""
    k = case.settings["dimensions"]
    if case.generator == "circle":
        p = case.parameters
        chord = 2 * p["radius"] * math.sin(math.pi / p["times"])
        return float(k / (2 * p["width"]) * (p["times"] - 1) * chord**2)
    path = case.arrays()["path"]
    total = 0.0
    for before, after in pairwise(path):
        total += math.fsum((float(b) - float(a)) ** 2 for a, b in zip(before, after, strict=True))
    return float(k / (2 * path.shape[1]) * total)


def dropout_capacity(case: Case) -> float:
    """[bits]: I(x; y) maximised over the share of the symbol 0, the others being alike."""
    from scipy.optimize import minimize_scalar

    symbols, rate = case.settings["symbols"], case.settings["rate"]

    def entropy(*shares: float) -> float:
        return -math.fsum(s * math.log2(s) for s in shares if s > 0)

    def lost(zero: float) -> float:
        kept = (1 - zero) * (1 - rate) / (symbols - 1)
        output = entropy(zero + (1 - zero) * rate, *[kept] * (symbols - 1))
        return -(output - (1 - zero) * entropy(rate, 1 - rate))

    best = minimize_scalar(lost, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-12})
    return float(max(-best.fun, -lost(0.0)))


def gaussian_capacity(case: Case) -> float:
    """[bits] by bisection for the water level."""
    noise, power = case.arrays()["noise"], case.settings["power"]
    low, high = float(noise.min()), float(noise.max()) + power
    for _ in range(200):
        level = (low + high) / 2
        full = np.maximum(level - noise, 0).sum() > power
        low, high = (low, level) if full else (level, high)
    return float(0.5 * np.log2(1 + np.maximum(level - noise, 0) / noise).sum())


def feature_allocation(case: Case) -> Floats:
    """Capacities [features]: sum 2 v^2 (k-1)(1-C) / (2 + (k-3) C) made least, numerically."""
    from scipy.optimize import minimize

    v, m = case.arrays()["importance"], case.settings["dimensions"]
    k = case.settings["kurtosis"]

    def loss(c: Floats) -> float:
        return float((2 * v**2 * (k - 1) * (1 - c) / (2 + (k - 3) * c)).sum())

    def slope(c: Floats) -> Floats:
        return np.asarray(-2 * v**2 * (k - 1) ** 2 / (2 + (k - 3) * c) ** 2)

    found = minimize(
        loss,
        np.full(len(v), m / len(v)),
        jac=slope,
        bounds=[(0.0, 1.0)] * len(v),
        constraints={"type": "eq", "fun": lambda c: c.sum() - m},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    return np.asarray(found.x)


def feature_capacity(case: Case) -> Floats:
    """2 / n for each of a regular polygon's n corners in the plane."""
    n = case.parameters["features"]
    return np.full(n, 2 / n)


ORACLES: dict[str, Callable[[Case], float | Floats]] = {
    f.__name__: f
    for f in (
        mutual_information,
        exponent,
        participation_ratio,
        effective_rank,
        expected_action,
        dropout_capacity,
        gaussian_capacity,
        feature_allocation,
        feature_capacity,
    )
}
