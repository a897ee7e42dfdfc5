"""Capacity of any discrete memoryless channel, with a certified gap (Blahut 1972, Arimoto 1972)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from polycode_plugins.errors import DataError, PolycodeError
from polycode_plugins.theory._arguments import Array, Floats, count, number, within

_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class ChannelCapacity:
    """Capacity of a discrete memoryless channel, bracketed.

    bits: mutual information that `input_distribution` achieves, a lower bound of the capacity.
    upper: an upper bound, max_x D(channel[x] || output distribution) [bits]; valid at any input.
    input_distribution: [inputs], sums to 1.
    iterations: steps that were needed.
    """

    bits: float
    upper: float
    input_distribution: Floats
    iterations: int

    @property
    def gap(self) -> float:
        """`upper` - `bits`, in which the capacity lies [bits]."""
        return self.upper - self.bits


def dropout_channel(symbols: int, rate: float) -> Floats:
    """The channel [inputs, outputs] of a neuron with `symbols` values under dropout.

    Value 0 is symbol 0; any symbol is replaced by it with probability `rate`.
    """
    drop = number(rate, "rate", 0, 1)
    channel = (1 - drop) * np.eye(count(symbols, "symbols"))
    channel[:, 0] += drop
    return np.asarray(channel)


def blahut_arimoto(
    channel: Array, tol: float = 1e-9, max_iterations: int | None = None, accelerate: bool = True
) -> ChannelCapacity:
    """Capacity [bits per use] of `channel` [inputs, outputs], whose rows are P(output | input).

    Stops when the upper and the lower bound differ by at most `tol` [bits]; both follow from the
    input distribution alone, however it was found. With `accelerate=False` that is the textbook
    alternation p <- p exp(D(row || output)), normalised, whose gap may shrink no faster than
    1 / iterations: it needs about 1/tol of them where an optimal input is on the verge of use, as
    at the corner of `dropout_capacity`, or where two inputs are almost alike. By default the same
    maximum is found by an interior-point Newton method, in 10 to 20 steps of inputs^3 operations.

    `max_iterations` is 100 by default, and 1,000,000 for the alternation. `tol` is at least 1e-13,
    which rounding allows. Raises `DataError` if rows are no distributions, and `PolycodeError` if
    `tol` is not reached.
    Source: Blahut 1972; Arimoto 1972.
    """
    rows = within(channel, "channel", 0, dimensions=2)
    total = rows.sum(1)
    if abs(total - 1).max() > 1e-9:
        raise DataError(
            "channel must have rows that sum to 1 (P(output | input)), one sums to "
            f"{total[abs(total - 1).argmax()]:.9g}; normalise them, or transpose."
        )
    rows = rows[:, rows.any(0)]
    tol = number(tol, "tol", 1e-13)
    if max_iterations is None:
        max_iterations = 100 if accelerate else 1_000_000
    steps = _newton(rows) if accelerate else _alternation(rows)
    budget = range(count(max_iterations, "max_iterations") + 1)
    for iteration, (p, divergence) in zip(budget, steps, strict=False):
        lower, upper = float(p @ divergence), float(divergence.max())
        if upper - lower <= tol:
            return ChannelCapacity(lower, upper, p, iteration)
    raise PolycodeError(
        f"The capacity is known to {upper - lower:.2g} bits only after {iteration} iterations, "
        f"where tol={tol:g} was asked; raise tol or max_iterations."
    )


#: Yields input distributions p, each with D(row || output distribution under p) [bits] per input.
_Steps: TypeAlias = Iterator[tuple[Floats, Floats]]


def _alternation(rows: Floats) -> _Steps:
    divergence_at = _divergence(rows)
    p = np.full(len(rows), 1 / len(rows))
    while True:
        divergence = divergence_at(p)
        yield p, divergence
        p = p * np.exp2(divergence - divergence.max())
        p /= p.sum()


def _newton(rows: Floats) -> _Steps:
    """Primal-dual path following for max I(p) over the simplex.

    Optimal are p, slack >= 0 and a level (the capacity) with D_x + slack_x = level and
    p_x slack_x = 0 for every input x; each step aims at p_x slack_x = barrier, a tenth of the last.
    """
    inputs = len(rows)
    divergence_at = _divergence(rows)
    p = np.full(inputs, 1 / inputs)
    divergence = divergence_at(p) * np.log(2)  # the Hessian below is in nats
    level = divergence.max() + 0.1 * (divergence.max() - p @ divergence)
    slack = level - divergence + _TINY
    while True:
        yield p, divergence / np.log(2)
        barrier = 0.1 * (p @ slack) / inputs
        outputs = np.maximum(p @ rows, _TINY)
        curvature = (rows / outputs) @ rows.T + np.diag(slack / p)
        residual = divergence - level + barrier / p
        try:
            solved = np.linalg.solve(curvature, np.column_stack([residual, np.ones(inputs)]))
        except np.linalg.LinAlgError:  # inputs alike to the last digit: no further step is certain
            return
        move_level = solved[:, 0].sum() / solved[:, 1].sum()  # keeps the sum of p
        move_p = solved[:, 0] - move_level * solved[:, 1]
        move_slack = barrier / p - slack - slack / p * move_p
        p = p + _longest(p, move_p) * move_p
        p /= p.sum()
        share = _longest(slack, move_slack)
        slack = slack + share * move_slack
        level += share * move_level
        divergence = divergence_at(p) * np.log(2)


def _longest(value: Floats, move: Floats) -> float:
    """The largest share <= 1 of `move` that keeps `value` positive, with a margin."""
    return float(min(1.0, 0.99 / max((-move / value).max(), _TINY)))


def _divergence(rows: Floats) -> Callable[[Floats], Floats]:
    """p -> D(row || output distribution under p) [bits], [inputs]."""
    from scipy.special import xlogy

    negentropy = xlogy(rows, rows).sum(1) / np.log(2)

    def at(p: Floats) -> Floats:
        return np.asarray(negentropy - rows @ np.log2(np.maximum(p @ rows, _TINY)))

    return at
