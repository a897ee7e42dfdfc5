"""Channels and their closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from polycode_plugins.errors import DataError
from polycode_plugins.information import (
    AdditiveGaussian,
    AdditiveUniform,
    Dropout,
    Quantisation,
    require_noise,
)
from polycode_plugins.information import channels as closed


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


def test_cells_of_a_range_that_does_not_begin_at_zero() -> None:
    four = Quantisation(2, -1.0, 7.0)  # cells of width 2
    y = torch.tensor([-1.0, 0.9, 1.1, 4.0, 6.9, -50.0, 50.0])
    assert four.cells(y).tolist() == [0, 0, 1, 2, 3, 0, 3]
    assert four.apply(y, torch.Generator()).tolist() == [0, 0, 2, 4, 6, 0, 6]


def test_uniform_noise_fills_its_width_and_no_more() -> None:
    y = torch.full((4000,), 5.0)
    noise = AdditiveUniform(0.5).apply(y, torch.Generator().manual_seed(0)) - y
    assert -0.5 <= float(noise.min()) < -0.49
    assert 0.49 < float(noise.max()) <= 0.5
    wrapped = AdditiveUniform(0.5, period=2.0).apply(y, torch.Generator().manual_seed(0))
    assert torch.allclose(wrapped, (y + noise) % 2)
    assert closed.wrapped_uniform(0.5, 2.0) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Dropout(0.0),
        lambda: AdditiveUniform(0.0),
        lambda: AdditiveUniform(math.inf),
        lambda: AdditiveUniform(0.1, period=0.0),
        lambda: Quantisation(3, 1.0, 1.0),
        lambda: closed.binary_symmetric(1.1),
        lambda: closed.erasure(-0.1),
        lambda: closed.additive_gaussian(-1.0, 1.0),
        lambda: closed.additive_gaussian(1.0, 0.0),
        lambda: closed.quantised_uniform(0),
        lambda: closed.quantised_uniform(1, 0),
    ],
)
def test_noise_that_is_none_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(DataError):
        wrong()
