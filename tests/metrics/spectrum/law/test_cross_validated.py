"""cvPCA: planted signal and noise, where the ordinary spectrum is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polycode_plugins.errors import DataError
from polycode_plugins.metrics.spectrum.law.cross_validated import cross_validated_spectrum


def repeats(stimuli: int, width: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two repeats of a signal with eigenvalues 1 / rank in a random basis, and white noise."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((width, width)))[0]
    signal = rng.standard_normal((stimuli, width)) * np.arange(1, width + 1) ** -0.5 @ basis
    one, two = (signal + noise * rng.standard_normal(signal.shape) + 5.0 for _ in range(2))
    return one, two


def test_signal_is_recovered_under_noise_that_hides_it():
    width = 200
    one, two = repeats(4000, width, noise=0.2)
    found = cross_validated_spectrum(one, two, swaps=3)
    planted = 1 / np.arange(1, width + 1)
    assert found.eigenvalues.sum() == pytest.approx(planted.sum(), rel=0.02)
    assert found.signal_share == pytest.approx(planted.sum() / (planted.sum() + 8), abs=0.02)
    assert np.allclose(found.eigenvalues[:10], planted[:10], rtol=0.12)
    assert found.exponent((2, 40)) == pytest.approx(1.0, abs=0.06)
    # The ordinary spectrum at the same ranks has a noise floor of 0.04 beneath a signal of 0.025.
    naive = np.polyfit(np.log(np.arange(2, 41)), np.log(found.naive[1:40]), 1)[0]
    assert naive > -0.75


def test_noise_without_signal_has_a_spectrum_around_zero():
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((2, 500, 50))
    found = cross_validated_spectrum(one, two)
    assert abs(found.signal_share) < 0.02
    with pytest.raises(DataError, match="lost in noise"):
        found.exponent((1, 50))


@pytest.mark.parametrize("shape", [(40, 200), (200, 40)])
def test_both_decompositions_are_plain_cvpca(shape):
    rng = np.random.default_rng(1)
    one, two = rng.standard_normal((2, *shape))
    two += one
    found = cross_validated_spectrum(one, two, swaps=1)
    a, b = one - one.mean(axis=0), two - two.mean(axis=0)
    components = np.linalg.svd(a, full_matrices=False)[2][: min(shape[1], shape[0] - 1)]
    by_hand = ((a @ components.T) * (b @ components.T)).sum(axis=0) / (shape[0] - 1)
    assert np.allclose(found.eigenvalues, by_hand, rtol=1e-8, atol=1e-10)
    assert np.allclose(found.naive, ((a @ components.T) ** 2).sum(axis=0) / (shape[0] - 1))


def test_torch_tensors_and_seeds():
    one, two = repeats(50, 10, 0.1)
    tensors = torch.from_numpy(one).float(), torch.from_numpy(two).float()
    found = cross_validated_spectrum(*tensors, seed=3)
    again = cross_validated_spectrum(one, two, seed=3)
    assert np.allclose(found.eigenvalues, again.eigenvalues, atol=1e-5)
    other = cross_validated_spectrum(one, two, seed=4)
    assert not np.array_equal(again.eigenvalues, other.eigenvalues)


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        (np.eye(5), np.eye(5)[:4], "shapes"),
        (np.eye(5), np.eye(5), "the same numbers"),
        (np.eye(2), np.ones((2, 2)), "2 stimuli"),
        (np.ones((5, 2)), np.eye(5)[:, :2], "constant"),
        (np.eye(5), np.full((5, 5), np.nan), "NaN"),
        (np.ones(5), np.eye(5), r"\[stimuli, features\]"),
    ],
)
def test_bad_repeats_are_one_clear_sentence(one, two, message):
    with pytest.raises(DataError, match=message):
        cross_validated_spectrum(one, two)


def test_ranks_and_swaps_are_checked():
    one, two = repeats(50, 10, 0.1)
    with pytest.raises(DataError, match="wider range"):
        cross_validated_spectrum(one, two).exponent((8, 500))
    with pytest.raises(DataError, match="swaps"):
        cross_validated_spectrum(one, two, swaps=0)
