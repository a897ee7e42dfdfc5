"""Intervals of the redundancy where rows are not Gaussian: what single rows add is counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from feature_rows import LAW, WIDTH, features, gathered
from torch import Tensor

import polycode_plugins as pc
from polycode_plugins.metrics.capacity.redundancy_spread import redundancy_spread
from polycode_plugins.metrics.spectrum.priority_sample import PrioritySample
from polycode_plugins.theory import gaussian_entropy

GIANTS = 0.004  # share of rows that make four fifths of the variance, along one feature


def rows_of(kind: str, n: int, generator: torch.Generator) -> tuple[Tensor, np.ndarray]:
    """Rows [n, WIDTH], and the variances of their population."""
    if kind != "giants":
        return features(kind, n, generator) * LAW.sqrt(), LAW.numpy()
    rows, variances = features("gaussian", n, generator) * LAW.sqrt(), LAW.clone()
    giant = torch.rand(n, generator=generator, dtype=torch.float64) < GIANTS
    size = torch.randn(n, generator=generator, dtype=torch.float64)
    rows[:, 3] += giant * size * (4 * float(LAW.sum()) / GIANTS) ** 0.5
    variances[3] += 4 * LAW.sum()
    return rows, variances.numpy()


def spread(rows: Tensor, *, relative: bool = True) -> float:
    covariance, sample = gathered(rows)
    values = covariance.eigenvalues().numpy()
    noise = float(values.mean()) / 1200
    return redundancy_spread(covariance, values, noise, sample, relative=relative, square=1.0)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("n", [30, 60, 300, 3000])  # fewer rows than features, and more
def test_gaussian_rows_add_what_they_are_taken_to_add(n, relative):
    generator = torch.Generator().manual_seed(n)
    found = [spread(rows_of("gaussian", n, generator)[0], relative=relative) for _ in range(10)]
    assert found == [1.0] * 10


@pytest.mark.parametrize("kind", ["laplace", "silent", "giants"])
@pytest.mark.parametrize("relative", [True, False])
def test_it_is_the_variance_over_draws(kind, relative):
    """Of the redundancy at a step, over that of Gaussian rows of the same covariance."""
    generator = torch.Generator().manual_seed(1)
    drawn: dict[str, list[float]] = {kind: [], "gaussian": []}
    said = []
    for _ in range(150):
        rows, variances = rows_of(kind, 2000, generator)
        plain = features("gaussian", 2000, generator) * torch.from_numpy(variances).sqrt()
        for name, one in ((kind, rows), ("gaussian", plain)):
            values = np.linalg.eigvalsh(np.cov(one.numpy().T))
            mean = float(values.mean() if relative else variances.mean())
            step = (mean / 100) ** 0.5
            flat = WIDTH * gaussian_entropy([values.mean()], step)
            drawn[name].append(flat - gaussian_entropy(values, step))
        if len(said) < 12:
            said.append(spread(rows, relative=relative))
    expected = np.var(drawn[kind]) / np.var(drawn["gaussian"])
    assert expected > 1.5
    assert np.median(said) == pytest.approx(expected, rel=0.35)


@pytest.mark.parametrize(("kind", "n", "least"), [("silent", 600, 0.8), ("giants", 3000, 0.75)])
def test_intervals_hold(kind, n, least):
    generator = torch.Generator().manual_seed(7)
    held = []
    for _ in range(30):
        rows, variances = rows_of(kind, n, generator)
        result = pc.metrics.Capacity().measure(rows)
        assert result.interval is not None
        step = result.step / result.total_variance**0.5 * variances.sum() ** 0.5
        flat = WIDTH * gaussian_entropy([variances.mean()], step)
        truth = flat - gaussian_entropy(variances, step)
        held.append(result.interval[0] <= truth <= result.interval[1])
    assert np.mean(held) >= least  # without it half of the one, and hardly any of the other


def test_rows_kept_as_they_came_and_their_moments_give_the_same():
    rows, _ = rows_of("silent", 38, torch.Generator().manual_seed(3))  # two fewer than features
    covariance, sample = gathered(rows)
    values = covariance.eigenvalues().numpy()
    found = [
        redundancy_spread(one, values, 0.01, sample, relative=True, square=1.0)
        for one in (covariance, folded(covariance))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert found[0] > 1


def folded(covariance: pc.metrics.Covariance) -> pc.metrics.Covariance:
    other = covariance.fresh()
    other.merge(covariance)
    other._fold()
    assert not other.keeps_rows
    return other


def test_states_that_kept_no_rows_count_as_gaussian():
    covariance, _ = gathered(rows_of("silent", 600, torch.Generator().manual_seed(8))[0])
    values = covariance.eigenvalues().numpy()
    empty = PrioritySample("samples")
    assert redundancy_spread(covariance, values, 0.01, empty, relative=True, square=1.0) == 1.0
