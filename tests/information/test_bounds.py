"""The bounds as functions of scores, against definitions written out and against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from polycode_plugins.errors import DataError
from polycode_plugins.information import (
    AdditiveGaussian,
    AdditiveUniform,
    Dropout,
    Quantisation,
    estimate_gaussian,
    ksg,
    require_noise,
)
from polycode_plugins.information import channels as closed
from polycode_plugins.information.bounds import BOUNDS, MovingAverage, apart, log_mean_exp
from polycode_plugins.information.gaussian import wishart_bias


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


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_neighbours_on_gaussians(rho: float) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4000, 1))
    y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=(4000, 1))
    assert abs(ksg(x, y).nats + 0.5 * math.log(1 - rho**2)) < 0.05


def test_gaussian_estimate_is_unbiased_where_the_plug_in_is_not() -> None:
    n, p, q = 60, 4, 3
    found = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        found.append(estimate_gaussian(rng.normal(size=(n, p)), rng.normal(size=(n, q))).nats)
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(300)
    bias = wishart_bias(p, q, n)
    assert bias == pytest.approx(p * q / (2 * n), rel=0.15)
    assert bias > 10 * np.std(found) / math.sqrt(300)  # the test could see it missing


def test_channels_are_seeded_and_what_they_say() -> None:
    y = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for channel in (
        Dropout(0.2),
        Dropout(0.2, rescale=True),
        AdditiveGaussian(0.1),
        AdditiveUniform(0.1, period=1.0),
        Quantisation(3, 0.0, 1.0),
    ):
        one = channel.apply(y, torch.Generator().manual_seed(1))
        assert torch.equal(one, channel.apply(y, torch.Generator().manual_seed(1)))
        assert one.shape == y.shape
        assert one.dtype == y.dtype
    dropped = Dropout(0.2, rescale=True).apply(y, torch.Generator().manual_seed(1))
    assert abs(float((dropped == 0).double().mean()) - 0.2) < 0.03
    kept = dropped != 0
    assert torch.allclose(dropped[kept], y[kept] / 0.8)
    noise = AdditiveGaussian(0.1).apply(y, torch.Generator().manual_seed(1)) - y
    assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
    assert len(torch.unique(Quantisation(3, 0.0, 1.0).apply(y, torch.Generator()))) == 8


def test_no_channel_and_no_channel_object_are_refused() -> None:
    with pytest.raises(DataError, match="deterministic"):
        require_noise(None, "layer 3")
    with pytest.raises(DataError, match="no noise model"):
        require_noise("gaussian", "layer 3")  # type: ignore[arg-type]
    for wrong in (
        lambda: Dropout(1.0),
        lambda: AdditiveGaussian(0.0),
        lambda: Quantisation(0, 0, 1),
    ):
        with pytest.raises(DataError):
            wrong()


def test_closed_forms_at_their_ends() -> None:
    assert closed.binary_symmetric(0.0) == pytest.approx(math.log(2))
    assert closed.binary_symmetric(0.5) == pytest.approx(0.0)
    assert closed.erasure(1.0) == 0
    assert closed.additive_gaussian(3.0, 1.0) == pytest.approx(math.log(2))
    assert closed.quantised_uniform(3, 3) == pytest.approx(9 * math.log(2))
    with pytest.raises(DataError, match="laps"):
        closed.wrapped_uniform(0.6, 1.0)
