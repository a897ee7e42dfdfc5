"""Channel capacities: closed forms against Blahut-Arimoto, and it against known channels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polycode_plugins import theory
from polycode_plugins.errors import DataError, PolycodeError

repeatable = settings(deadline=None, derandomize=True)


def entropy(p):
    p = np.asarray(p)[np.asarray(p) > 0]
    return -(p * np.log2(p)).sum()


def information(channel, p):
    return entropy(p @ channel) - p @ [entropy(row) for row in channel]


def test_dropout_oracle():
    assert theory.dropout_capacity(2, 0.2) == pytest.approx(1.38127, abs=5e-6)
    assert theory.dropout_capacity(2, 0.2, bound="upper") == pytest.approx(1.6, rel=1e-15)


@pytest.mark.parametrize("symbols", [2, 3, 4, 5, 8, 16, 33, 64])
def test_dropout_capacity_agrees_with_blahut_arimoto(symbols):
    for rate in [*np.linspace(0, 0.99, 12), 0.5]:  # 5 symbols at 1/2: exactly the corner
        found = theory.blahut_arimoto(theory.dropout_channel(symbols, rate))
        exact = theory.dropout_capacity(np.log2(symbols), rate)
        assert found.gap <= 1e-9
        assert found.bits == pytest.approx(exact, abs=2e-9)


def test_acceleration_reaches_the_corner():
    corner = theory.dropout_channel(5, 0.5)
    found = theory.blahut_arimoto(corner, tol=1e-11)
    assert found.iterations < 30
    assert found.bits == pytest.approx(1.0, abs=1e-11)
    plain = theory.blahut_arimoto(corner, tol=1e-6, accelerate=False)
    assert plain.iterations > 1000
    assert plain.bits == pytest.approx(1.0, abs=1e-6)


@repeatable
@given(bits=st.floats(0, 100), rate=st.floats(0, 1))
def test_dropout_bounds_are_ordered(bits, rate):
    exact, lower, additive, upper = (
        theory.dropout_capacity(bits, rate, bound=bound)
        for bound in ("exact", "lower", "additive", "upper")
    )
    slack = 1e-12 * (1 + bits)
    assert 0 <= lower <= exact + slack
    assert 0 <= additive <= exact + slack
    assert exact <= upper + slack
    if bits >= 1:
        assert lower <= additive + slack


@repeatable
@given(bits=st.floats(0.01, 30), rate=st.floats(0, 0.99), more=st.floats(0, 1))
def test_dropout_capacity_grows_with_bits_and_falls_with_rate(bits, rate, more):
    here = theory.dropout_capacity(bits, rate)
    assert theory.dropout_capacity(bits + more, rate) >= here - 1e-12
    assert theory.dropout_capacity(bits, rate + more * (1 - rate)) <= here + 1e-12


def test_dropout_capacity_at_the_edges():
    capacity = theory.dropout_capacity([[0.0], [0.5], [1.0], [7.0], [64.0], [1e5]], [0.0, 1.0])
    np.testing.assert_allclose(
        capacity[:, 0], [0, 0.5, 1, 7, 64, 1e5], rtol=1e-14, err_msg="no dropout loses nothing"
    )
    np.testing.assert_array_equal(capacity[:, 1], 0)
    for bound in ("lower", "additive", "upper"):
        assert theory.dropout_capacity(0, 0.3, bound=bound) == 0
        assert theory.dropout_capacity(1e5, 0.25, bound=bound) == 75_000
        assert theory.dropout_capacity(8, 1, bound=bound) == 0
    assert isinstance(theory.dropout_capacity(8, 0.1), float)
    assert theory.dropout_capacity(1e-9, 0.5) == pytest.approx(0.25e-9, rel=1e-6)


def test_bounds_as_the_theorem_and_its_proof_state_them():
    bits, rate = 3.0, 0.2
    eps = -np.log2(1 - 2**-bits)
    assert theory.dropout_capacity(bits, rate, "lower") == pytest.approx(
        (1 - eps) * (1 - rate) * bits, rel=1e-14
    )
    assert theory.dropout_capacity(bits, rate, "additive") == pytest.approx(
        (1 - rate) * (bits - eps), rel=1e-14
    )


def test_dropout_capacity_refuses_what_it_cannot_mean():
    with pytest.raises(DataError, match="rate must be >= 0 and <= 1"):
        theory.dropout_capacity(4, -0.1)
    with pytest.raises(DataError, match="bits must be >= 0"):
        theory.dropout_capacity(-1, 0.1)
    with pytest.raises(DataError, match="bound must be one of exact"):
        theory.dropout_capacity(4, 0.1, bound="sharp")
    with pytest.raises(DataError, match="do not broadcast"):
        theory.dropout_capacity([1, 2], [0.1, 0.2, 0.3])


def test_blahut_arimoto_on_channels_of_known_capacity():
    flip, erase, stick = 0.11, 0.3, 0.4
    known = [
        ([[1 - flip, flip], [flip, 1 - flip]], 1 - entropy([flip, 1 - flip])),
        ([[1 - erase, erase, 0], [0, erase, 1 - erase]], 1 - erase),
        ([[1, 0], [stick, 1 - stick]], np.log2(1 + (1 - stick) * stick ** (stick / (1 - stick)))),
        (0.5 * (np.eye(6) + np.roll(np.eye(6), 1, axis=1)), np.log2(3)),
        (np.full((4, 3), 1 / 3), 0.0),
        ([[1.0]], 0.0),
        ([[1, 0, 0], [0, 1, 0]], 1.0),  # an output that never occurs
        ([[1, 0], [0, 1], [0.5, 0.5]], 1.0),  # an input best never used
    ]
    for channel, capacity in known:
        for accelerate in (True, False):
            found = theory.blahut_arimoto(channel, accelerate=accelerate)
            assert found.bits == pytest.approx(capacity, abs=2e-9)
            assert found.bits <= capacity + 1e-12
            assert found.upper >= capacity - 1e-12


def test_both_iterations_find_the_same_capacity():
    rng = np.random.default_rng(0)
    for inputs, outputs in [(4, 4), (12, 5), (5, 12)]:
        channel = rng.dirichlet(np.ones(outputs), size=inputs)
        fast = theory.blahut_arimoto(channel, tol=1e-8)
        plain = theory.blahut_arimoto(channel, tol=1e-8, accelerate=False)
        assert fast.bits == pytest.approx(plain.bits, abs=1e-8)


@repeatable
@given(
    inputs=st.integers(1, 12),
    outputs=st.integers(1, 12),
    concentration=st.sampled_from([0.1, 0.5, 3.0]),
    seed=st.integers(0, 10_000),
)
def test_blahut_arimoto_brackets_the_capacity(inputs, outputs, concentration, seed):
    rng = np.random.default_rng(seed)
    channel = rng.dirichlet(np.full(outputs, concentration), size=inputs) + 1e-12
    channel /= channel.sum(1, keepdims=True)
    found = theory.blahut_arimoto(channel, tol=1e-7)
    p = found.input_distribution
    assert p.min() >= 0
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert information(channel, p) == pytest.approx(found.bits, abs=1e-10)
    assert found.gap <= 1e-7
    for other in rng.dirichlet(np.ones(inputs), size=20):
        assert information(channel, other) <= found.upper + 1e-10


@pytest.mark.parametrize("accelerate", [True, False])
def test_blahut_arimoto_says_when_it_has_not_converged(accelerate):
    with pytest.raises(PolycodeError, match="bits only after 3 iterations, where tol=1e-09"):
        theory.blahut_arimoto([[1, 0], [0.4, 0.6]], max_iterations=3, accelerate=accelerate)


def test_blahut_arimoto_refuses_what_is_no_channel():
    with pytest.raises(DataError, match="sum to 1"):
        theory.blahut_arimoto([[0.5, 0.4], [0.5, 0.5]])
    with pytest.raises(DataError, match="channel must be >= 0"):
        theory.blahut_arimoto([[1.5, -0.5], [0.5, 0.5]])
    with pytest.raises(DataError, match="2 axes"):
        theory.blahut_arimoto([0.5, 0.5])


def test_dropout_channel_rows_are_what_dropout_does():
    channel = theory.dropout_channel(3, 0.25)
    np.testing.assert_array_equal(channel, [[1, 0, 0], [0.25, 0.75, 0], [0.25, 0, 0.75]])
