"""Linear codes over a finite field, sent through neurons with dropout, and decoded exactly.

A neuron takes p values (p prime), one of which is 0; dropout sets it to 0. The decoder knows the
code, takes every 0 for a loss (unless there is no dropout), and finds those symbols that the rest
determines.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def send(
    code: Integers, messages: Integers, rate: float, prime: int, generator: np.random.Generator
) -> Integers:
    """What arrives, [trials, neurons], of `messages` [trials, symbols] under dropout `rate`."""
    sent = messages @ code.T % prime
    kept: Integers = sent * (generator.random(sent.shape) >= rate)
    return kept


def decode(
    code: Integers, arrived: Integers, prime: int, *, dropout: bool = True
) -> tuple[Integers, NDArray[np.bool_]]:
    """Symbols [trials, symbols], and which of them are determined by what arrived.

    Without `dropout` a 0 was sent and counts. Gauss-Jordan elimination modulo `prime`, all trials
    at once; undetermined symbols are 0.
    """
    trials, neurons = arrived.shape
    symbols = code.shape[1]
    heard = (arrived != 0) | (not dropout)
    system = np.concatenate([code[None] * heard[:, :, None], arrived[:, :, None]], axis=2)
    inverses = np.array([0, *(pow(i, -1, prime) for i in range(1, prime))])
    every = np.arange(trials)
    rank = np.zeros(trials, dtype=np.int64)
    row_of = np.full((trials, symbols), -1)
    for column in range(symbols):
        open_rows = (system[:, :, column] != 0) & (np.arange(neurons) >= rank[:, None])
        found = open_rows.any(axis=1)
        pivot = np.where(found, open_rows.argmax(axis=1), 0)
        target = np.where(found, rank, pivot)
        chosen = system[every, pivot]
        system[every, pivot] = system[every, target]
        chosen = chosen * np.where(found, inverses[chosen[:, column]], 1)[:, None] % prime
        system[every, target] = chosen
        factor = system[:, :, column] * found[:, None]
        factor[every, target] = 0
        system -= factor[:, :, None] * chosen[:, None, :]
        system %= prime
        row_of[found, column] = rank[found]
        rank += found
    rows = np.take_along_axis(system, np.maximum(row_of, 0)[:, :, None], axis=1)
    bound = row_of >= 0
    # A symbol is determined if its row involves none that is free.
    involved = ((rows[:, :, :-1] != 0) & ~bound[:, None, :]).any(axis=2)
    determined = bound & ~involved
    return np.where(determined, rows[:, :, -1], 0), determined


def random_code(neurons: int, symbols: int, prime: int, generator: np.random.Generator) -> Integers:
    """A dense random code [neurons, symbols]: every neuron takes part in every symbol."""
    drawn: Integers = generator.integers(1, prime, (neurons, symbols))
    return drawn


def reliable_symbols(neurons: int, rate: float, prime: int, failure: float) -> int:
    """Symbols of a dense random code of which all survive dropout with probability 1 - `failure`.

    All do if at least as many neurons are heard as there are symbols, for a dense random system is
    then solvable but for a chance of about 1 / prime, against which one neuron is kept in hand.
    """
    from scipy.stats import binom

    if rate == 0:
        return neurons
    heard = (1 - rate) * (1 - 1 / prime)
    low: Any = binom.ppf(failure, neurons, heard)
    return max(int(low) - 1, 0)
