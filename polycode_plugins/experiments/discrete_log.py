"""The discrete exponential g^x mod p and its inverse, in exact arithmetic.

Primes are safe: p = 2 q + 1 with q prime. Other groups have small factors, in which logarithms are
easy (Pohlig & Hellman 1978).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.errors import DataError

Integers = NDArray[np.int64]
#: Products of two residues have to fit 64 bits.
MOST_BITS = 31


@dataclass(frozen=True)
class Group:
    """The residues 1 to p - 1 under multiplication, with a primitive root g."""

    prime: int
    root: int

    @property
    def bits(self) -> int:
        """Digits of a residue in base 2."""
        return self.prime.bit_length()

    def power(self, x: Integers) -> Integers:
        """g^x mod p."""
        result, base, left = np.ones_like(x), self.root, x.copy()
        while (left > 0).any():
            result = np.where(left & 1, result * base % self.prime, result)
            base, left = base * base % self.prime, left >> 1
        return result

    def guessing(self) -> float:
        """Share of the digits of 1 to p - 1 that are right if each is guessed as more frequent."""
        place = 2 ** np.arange(self.bits)
        ones = self.prime // (2 * place) * place
        ones += np.maximum(self.prime % (2 * place) - place, 0)
        share = ones / (self.prime - 1)
        return float(np.maximum(share, 1 - share).mean())

    def is_square(self, y: Integers) -> NDArray[np.bool_]:
        """Euler's criterion, y^((p-1)/2) = 1: whether the logarithm of y is even."""
        return np.array([pow(int(v), (self.prime - 1) // 2, self.prime) == 1 for v in y])

    def logarithm(self, y: int) -> tuple[int, int]:
        """The x from 1 to p - 1 with g^x = y, and the multiplications that it took (Shanks 1971).

        Raises:
            DataError: unless y is a residue from 1 to p - 1.
        """
        if not 0 < y < self.prime:
            raise DataError(f"a residue lies between 1 and {self.prime - 1}, not at {y}")
        size = math.isqrt(self.prime - 2) + 1
        table: dict[int, int] = {}
        value = 1
        for step in range(size):
            table.setdefault(value, step)
            value = value * self.root % self.prime
        stride, value = pow(self.root, -size, self.prime), y
        for giant in range(size + 1):
            if value in table:
                x = giant * size + table[value]
                return x or self.prime - 1, size + giant
            value = value * stride % self.prime
        raise AssertionError("a primitive root reaches every residue")


def group(bits: int) -> Group:
    """The largest safe prime of so many binary digits (3 to 31), with its least primitive root.

    Raises:
        DataError: for other numbers of digits.
    """
    if not 3 <= bits <= MOST_BITS:
        raise DataError(f"primes have 3 to {MOST_BITS} binary digits here, not {bits}")
    p = 2**bits - 1
    while not (is_prime(p) and is_prime((p - 1) // 2)):
        p -= 2
    # A residue is a primitive root unless its order divides 2 or (p - 1) / 2.
    root = next(g for g in range(2, p) if pow(g, 2, p) != 1 and pow(g, (p - 1) // 2, p) != 1)
    return Group(p, root)


def is_prime(n: int) -> bool:
    """By trial division."""
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))


def digits(numbers: Integers, bits: int) -> NDArray[np.float32]:
    """Binary digits [..., bits], the lowest first."""
    return (numbers[..., None] >> np.arange(bits) & 1).astype(np.float32)
