"""Groups in which a logarithm is hard."""

from __future__ import annotations

import numpy as np
import pytest

from polycode_plugins.errors import DataError
from polycode_plugins.experiments.discrete_log import Group, digits, group, is_prime


@pytest.mark.parametrize("bits", [5, 9, 16, 31])
def test_groups_are_safe_and_their_powers_exact(bits):
    g = group(bits)
    assert g.bits == bits
    assert is_prime(g.prime)
    assert is_prime((g.prime - 1) // 2)
    x = np.random.default_rng(0).integers(1, g.prime, 50)
    y = g.power(x)
    assert y.tolist() == [pow(g.root, int(e), g.prime) for e in x]
    assert ((x % 2 == 0) == g.is_square(y)).all()
    if bits < 20:
        assert [g.logarithm(int(v))[0] for v in y] == x.tolist()


def test_every_residue_has_its_logarithm():
    g = group(7)
    every = np.arange(1, g.prime)
    assert sorted(g.power(every).tolist()) == every.tolist()
    found = [g.logarithm(int(v)) for v in g.power(every)]
    assert [x for x, _ in found] == every.tolist()
    assert max(steps for _, steps in found) < 2 * g.prime**0.5 + 3
    with pytest.raises(DataError, match="between 1 and"):
        g.logarithm(0)
    with pytest.raises(DataError, match="3 to 31"):
        group(40)
    assert Group(23, 5).power(np.array([22])).tolist() == [1]


def test_digits_are_the_number_again():
    numbers = np.array([0, 5, 1023])
    assert (digits(numbers, 10) @ 2 ** np.arange(10)).tolist() == numbers.tolist()
