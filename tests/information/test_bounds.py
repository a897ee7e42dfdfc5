"""The bounds as functions of scores, against definitions written out and against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from polycode_plugins.information.bounds import BOUNDS, MovingAverage, apart, log_mean_exp


def scores() -> torch.Tensor:
    return torch.randn(2, 7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_values_are_the_written_out_definitions() -> None:
    t = scores()[0].numpy()
    off = t[~np.eye(7, dtype=bool)]
    together = np.diag(t).mean()
    expected = {
        "mine": together - np.log(np.exp(off).mean()),
        "nwj": together - np.exp(off).mean() + 1,
        "smile": together - np.log(np.exp(off.clip(-5, 5)).mean()),
        "infonce": np.mean(np.diag(t) - np.log(np.exp(t).mean(1))),
    }
    for name, value in expected.items():
        assert float(BOUNDS[name].value(scores())[0]) == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("name", list(BOUNDS))
def test_shares_average_to_the_value(name: str) -> None:
    bound = BOUNDS[name]
    assert torch.allclose(bound.shares(scores()).mean(1), bound.value(scores()), atol=1e-12)


def test_log_mean_exp_is_stable() -> None:
    assert float(log_mean_exp(torch.tensor([1000.0, 1000.0]))) == 1000.0
    assert math.isfinite(float(apart(scores()[:1] + 1e4)[0]))


def test_the_moving_average_corrects_the_gradient() -> None:
    """With the true E_q[e^T] as denominator the gradient is unbiased; the batch's own is not."""
    generator = torch.Generator().manual_seed(1)
    scale = torch.tensor(1.0, requires_grad=True)
    # T = scale * z, z normal: E_q e^T = e^(1/2), and d/dscale ln E_q e^T = 1 at scale 1.
    corrected, naive = [], []
    average = MovingAverage()
    average.log_mean = torch.tensor([0.5])
    for _ in range(4000):
        z = torch.randn(1, 4, 4, generator=generator)
        batch = apart(scale * z)
        (g,) = torch.autograd.grad(torch.exp(batch - average.log_mean).sum(), scale)
        corrected.append(float(g))
        (g,) = torch.autograd.grad(apart(scale * z).sum(), scale)
        naive.append(float(g))
    assert abs(np.mean(corrected) - 1) < 0.06
    assert np.mean(naive) < 0.9


def test_the_running_mean_is_a_mean_of_exponentials() -> None:
    average = MovingAverage()
    average.update(torch.tensor([0.0]))
    for _ in range(400):
        average.update(torch.tensor([3.0]))
    assert float(average.log_mean) == pytest.approx(3.0, abs=1e-3)  # type: ignore[arg-type]
