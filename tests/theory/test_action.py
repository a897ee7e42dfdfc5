"""The expected action and its variance against explicit random projections."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polycode_plugins import theory
from polycode_plugins.errors import DataError


def smooth_path(time=200, width=512, seed=0):
    """A circle through random directions, with a mean far from zero."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 2 * np.pi, time)
    harmonics = np.column_stack([f(k * t) / k for k in range(1, 30) for f in (np.cos, np.sin)])
    return harmonics @ rng.standard_normal((58, width)) + 5.0


def sampled_actions(path, kind, projections, dimensions=3, seed=0):
    """Actions by the definitions, projection by projection."""
    rng = np.random.default_rng(seed)
    width = path.shape[1]
    out = []
    for _ in range(projections):
        z = path @ (rng.standard_normal((width, dimensions)) / np.sqrt(width))
        if kind == "path":
            out.append(0.5 * (np.diff(z, axis=0) ** 2).sum())
        else:
            out.append(0.5 * ((z - z.mean(0)) ** 2).sum(1).mean())
    return np.array(out)


@pytest.mark.parametrize("kind", ["path", "static"])
@pytest.mark.parametrize("dimensions", [1, 3])
def test_mean_and_variance_are_those_of_random_projections(kind, dimensions):
    path = smooth_path(time=40, width=20)
    actions = sampled_actions(path, kind, 20_000, dimensions)
    expected = theory.expected_action(path, dimensions, kind)
    variance = theory.action_variance(path, dimensions, kind)
    assert abs(actions.mean() - expected) < 4 * np.sqrt(variance / len(actions))
    assert actions.var() == pytest.approx(variance, rel=0.08)


def test_a_thousand_projections_come_within_one_and_a_half_percent():
    path = np.random.default_rng(0).standard_normal((200, 512)).cumsum(0)
    expected = theory.expected_action(path)
    relative_sd = np.sqrt(theory.action_variance(path) / 1000) / expected
    assert relative_sd < 0.004
    assert sampled_actions(path, "path", 1000).mean() == pytest.approx(expected, rel=0.015)


def test_exact_action_is_the_trace():
    path = smooth_path()
    steps = np.diff(path, axis=0)
    scatter = steps.T @ steps
    expected = theory.expected_action(path)
    assert expected == pytest.approx(3 / 1024 * np.trace(scatter), rel=1e-12)
    centred = path - path.mean(0)
    covariance = centred.T @ centred / len(path)
    assert theory.expected_action(path, kind="static") == pytest.approx(
        3 / 1024 * np.trace(covariance), rel=1e-12
    )
    for moments in (
        theory.action_moments(scatter),
        theory.action_moments(np.linalg.eigvalsh(scatter)),
        theory.action_moments(np.linalg.eigvalsh(scatter)[-60:], width=512),
    ):
        assert moments.expected == pytest.approx(expected, rel=1e-10)
        assert moments.variance == pytest.approx(theory.action_variance(path), rel=1e-10)


def test_action_by_hand():
    path = [[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]]
    assert theory.expected_action(path, dimensions=1) == pytest.approx(25 / 4)
    assert theory.action_variance(path, dimensions=1) == pytest.approx(625 / 8)
    assert theory.expected_action(torch.tensor(path, dtype=torch.bfloat16), 1) == 25 / 4


def test_the_action_ignores_where_the_path_is_and_scales_with_its_square():
    path = smooth_path(time=30, width=16)
    for kind in ("path", "static"):
        action = theory.expected_action(path, kind=kind)
        assert theory.expected_action(3 * path + 100, kind=kind) == pytest.approx(9 * action)
    shuffled = np.random.default_rng(0).permutation(path)
    assert theory.expected_action(shuffled) > 3 * theory.expected_action(path)
    assert theory.expected_action(shuffled, kind="static") == pytest.approx(
        theory.expected_action(path, kind="static"), rel=1e-12
    )


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: theory.expected_action([[1.0, 2.0]]), "single time step"),
        (lambda: theory.expected_action([1.0, 2.0]), "2 axes"),
        (lambda: theory.expected_action(np.eye(3), kind="energy"), "kind must be one of"),
        (lambda: theory.expected_action(np.eye(3), dimensions=0), "at least 1"),
        (lambda: theory.action_moments(np.triu(np.ones((3, 3)))), "not symmetric"),
        (lambda: theory.action_moments([[1.0, 0.2], [0.0, 1.0]]), "not symmetric"),
        (lambda: theory.action_moments(np.ones((3, 2))), "square matrix"),
        (lambda: theory.action_moments([1.0, 2.0], width=1), "does not fit"),
        (lambda: theory.action_moments([1.0, -2.0]), "negative"),
    ],
)
def test_arguments_outside_the_domain_are_refused(call, says):
    with pytest.raises(DataError, match=says):
        call()
