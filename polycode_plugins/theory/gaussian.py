"""Entropy, information and capacity of Gaussian activations with a measured spectrum.

Everything is in bits per sample, and an upper bound for activations that are not Gaussian but have
the same covariance (for `gaussian_entropy`, up to the quantisation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polycode_plugins.theory._arguments import Array, Floats, number, spectrum, within


@dataclass(frozen=True)
class WaterFilling:
    """How a budget is spread over components.

    bits: capacity, or rate, per sample.
    allocation: [components], the power (or the squared error) that each component is given.
    level: the water level, in the same units.
    """

    bits: float
    allocation: Floats
    level: float


def gaussian_entropy(eigenvalues: Array, step: float) -> float:
    """Entropy [bits per sample] of a Gaussian read to a precision of `step`.

    `eigenvalues` [components] are covariance eigenvalues; every principal component is rounded to
    the nearest multiple of `step` from its mean (`step` > 0, in units of activation). Exact for
    each component, so a component much narrower than `step` adds 0 bits; one much wider adds
    log2(sigma sqrt(2 pi e) / step).
    """
    variance = spectrum(eigenvalues)
    ratio = np.sqrt(variance) / number(step, "step", 0, open_low=True)
    # The rounded variable has the entropy of the density smoothed over a step (variance 1/12 of a
    # step squared), which from 8 steps on is Gaussian to 1e-13 nats.
    wide = ratio >= 8
    bits = np.log2(2 * np.pi * np.e * (ratio[wide] ** 2 + 1 / 12)).sum() / 2
    return float(bits + _rounded_entropy(ratio[(ratio > 0) & ~wide]))


def _rounded_entropy(ratio: Floats) -> float:
    """Summed entropy [bits] of normals of standard deviation `ratio` < 8, rounded to integers."""
    from scipy.special import erf, erfc, xlogy

    with np.errstate(over="ignore"):
        edges = (np.arange(96) + 0.5) / (ratio[:, None] * np.sqrt(2))  # 12 sigma
    upper_tail = erfc(edges) / 2
    middle, sides = erf(edges[:, 0]), upper_tail[:, :-1] - upper_tail[:, 1:]
    nats = -xlogy(middle, middle).sum() - 2 * xlogy(sides, sides).sum()
    return float(nats / np.log(2))


def gaussian_information(eigenvalues: Array, noise: float) -> float:
    """Information [bits per sample] that survives additive noise: sum 1/2 log2(1 + lambda / noise).

    `eigenvalues` [components] are the signal's own variances, `noise` > 0 the variance of isotropic
    Gaussian noise (the noise floor, units of activation squared). This is the mutual information
    of the Gaussian signal with its noisy reading, not a capacity: nothing is optimised.
    """
    variance = spectrum(eigenvalues)
    floor = number(noise, "noise", 0, open_low=True)
    return float(np.log1p(variance / floor).sum() / (2 * np.log(2)))


def gaussian_capacity(noise: Array, power: float) -> WaterFilling:
    """Capacity [bits per sample] of parallel Gaussian channels under a power budget: water-filling.

    `noise` [channels] > 0 are noise variances, `power` >= 0 the total signal variance, spread as
    power_i = max(level - noise_i, 0) to maximise sum 1/2 log2(1 + power_i / noise_i).

    The headroom of a measured spectrum is
    `gaussian_capacity(np.full(width, noise), eigenvalues.sum())` less `gaussian_information`: what
    the layer would gain by spreading the variance that it has. For a linear map with noise after
    it, pass noise / (singular value)^2.
    """
    floor = within(noise, "noise", 0, open_low=True, dimensions=1)
    budget = number(power, "power", 0)
    ordered = np.sort(floor)
    levels = (budget + np.cumsum(ordered)) / np.arange(1, len(ordered) + 1)
    level = float(levels[np.flatnonzero(levels >= ordered)[-1]])
    allocation = np.maximum(level - floor, 0.0)
    bits = float(np.log1p(allocation / floor).sum() / (2 * np.log(2)))
    return WaterFilling(bits, allocation, level)


def rate_distortion(eigenvalues: Array, distortion: float) -> WaterFilling:
    """Bits per sample needed to know a Gaussian to a total squared error: reverse water-filling.

    `eigenvalues` [components] are its variances, `distortion` > 0 the squared error allowed, summed
    over components and spread as error_i = min(level, lambda_i). The rate is
    sum 1/2 log2(lambda_i / error_i), and 0 once the distortion reaches the total variance.
    """
    variance = spectrum(eigenvalues)
    allowed = number(distortion, "distortion", 0, open_low=True)
    if allowed >= variance.sum():
        return WaterFilling(0.0, variance, float(variance.max()))
    ordered = np.sort(variance)
    below = np.concatenate([[0.0], np.cumsum(ordered)[:-1]])
    levels = (allowed - below) / np.arange(len(ordered), 0, -1)
    level = float(levels[np.flatnonzero(levels <= ordered)[0]])
    allocation = np.minimum(level, variance)
    coded = variance > level
    bits = float(np.log2(variance[coded] / level).sum() / 2)
    return WaterFilling(bits, allocation, level)
