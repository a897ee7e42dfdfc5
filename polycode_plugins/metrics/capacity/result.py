"""What the `capacity` metric says about a site, and under which assumptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.metrics.base import Result
from polycode_plugins.metrics.spectrum.law.power_law import PowerLawFit
from polycode_plugins.theory import gaussian_entropy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
_POINTS = 60  # of a curve in the plot
_READ = {"step": "as given", "relative_step": "{:.3g} of the typical standard deviation of a unit"}


@dataclass(frozen=True)
class PowerLawBound:
    """Bound on the entropy of a power-law code (Marshall & Kirchner 2024, Theorem 4) [bits].

    Attributes:
        exponent: of lambda_i ~ i^-exponent that was used; >= 0.
        bits: precision n of the law's first component.
        bits_given: whether n was given; otherwise it is the entropy of the first component, at the
            step, of the law that has the site's total variance.
        corrected: width * n - (exponent / 2) log2(width!), without components below the precision.
        as_published: width * n - exponent * width * log2(width / e).
        fit: how the exponent was found; None where it was given.
    """

    exponent: float
    bits: float
    bits_given: bool
    corrected: float
    as_published: float
    fit: PowerLawFit | None = None


@dataclass(frozen=True)
class DropoutCapacity:
    """Capacity of the site's units under dropout (Marshall & Kirchner 2024, Theorem 3) [bits].

    All are width times the capacity of one unit, the units being independent.

    Attributes:
        rate: probability that a unit is set to 0.
        bits: precision of one unit, of 2^bits values.
        bits_given: whether it was given; otherwise it is a unit's share of the flat code's entropy.
        exact: the capacity.
        lower, additive: lower bounds, of the theorem and of its proof.
        upper: upper bound, that of an erasure channel.
    """

    rate: float
    bits: float
    bits_given: bool
    exact: float
    lower: float
    additive: float
    upper: float


@dataclass(frozen=True, eq=False, kw_only=True)
class CapacityResult(Result):
    """Bits per sample of the code at one site, for Gaussian activations of its covariance.

    Attributes:
        redundancy: `flat_entropy` - `entropy`, the bits given up because units correlate and have
            unequal variances. Near 0 its estimate may be negative.
        interval: 95% interval (low, high) of the redundancy, for Gaussian samples of the number
            that they are worth; None where the entropy could not be corrected for that number.
        entropy: of the principal components, each read to `step`.
        entropy_naive: the same with the sample's eigenvalues for variances, biased low.
        flat_entropy: of independent units that share the total variance evenly.
        unit_entropy: of independent units with the variances that the units have.
        information: mutual information of the code and its reading under `noise`.
        information_naive: the same with the sample's eigenvalues, biased low.
        capacity: the most information that the total variance can carry through the noise
            (water-filling, which is even here).
        step: precision of the reading, in units of activation.
        noise: variance of the noise in every direction, in units of activation squared.
        step_from, noise_from: the setting that fixed them.
        uncorrected: which of "entropy" and "information" are naive, for want of samples.
        eigenvalues: float64 [rank] of the sample covariance, descending.
        total_variance: their sum.
        n_samples, width: of the covariance.
        effective_samples, effective_from: independent samples that they are worth, as tokens of a
            text are correlated, and whether that was measured; see `SpectrumResult`.
        positions: whether positions counted as "samples" or "features".
        power_law: bound of Theorem 4; None where no power law could be fitted.
        dropout: capacity under dropout; None unless a rate was given.
        warnings: what keeps the numbers from meaning what they seem to.
    """

    reading: ClassVar[str] = (
        "Redundancy is what a code gives up, in bits per sample, because its units correlate and "
        "share the variance unevenly: near 0 the code is efficient, near the entropy of the flat "
        "code it says the same thing over and over. All bits hold for Gaussian activations read "
        "to the stated step."
    )
    documentation: ClassVar[str] = "metrics.html#capacity"
    headline: ClassVar[tuple[str, ...]] = (
        "redundancy",
        "redundancy_low",
        "redundancy_high",
        "redundancy_fraction",
        "entropy",
        "n_samples",
    )
    picture: ClassVar[str] = (
        "Bits in the leading components, summed, of three codes of one total variance. The "
        "measured curve rises above the flat one where a few components hold much of the variance, "
        "and ends lower: what it lacks at its end is the redundancy. The dot there is the entropy "
        "corrected for the number of samples; the third curve is that of the fitted power law."
    )
    related: ClassVar[tuple[str, ...]] = ("redundancy_fraction",)
    mapped: ClassVar[tuple[str, ...]] = ("redundancy_fraction",)
    names: ClassVar[Mapping[str, str]] = {
        "redundancy_fraction": "share of the bits that is redundant",
        "redundancy_low": "95% interval, low",
        "redundancy_high": "95% interval, high",
        "snr": "signal-to-noise ratio",
        "n_samples": "samples",
    }
    units: ClassVar[Mapping[str, str]] = dict.fromkeys(
        (
            *("redundancy", "redundancy_low", "redundancy_high", "entropy", "flat_entropy"),
            *("lost_to_correlation", "lost_to_unequal_units", "information", "capacity"),
            *("power_law_entropy", "power_law_entropy_as_published", "power_law_bits"),
            *("dropout_capacity", "dropout_lower", "dropout_upper"),
        ),
        "bits",
    ) | {"step": "activation", "total_variance": "activation²"}

    redundancy: float
    interval: tuple[float, float] | None
    entropy: float
    entropy_naive: float
    flat_entropy: float
    unit_entropy: float
    information: float
    information_naive: float
    capacity: float
    step: float
    noise: float
    step_from: str
    noise_from: str
    uncorrected: tuple[str, ...]
    eigenvalues: Floats
    total_variance: float
    n_samples: int
    effective_samples: float
    effective_from: str
    width: int
    positions: str = "samples"
    power_law: PowerLawBound | None = None
    dropout: DropoutCapacity | None = None
    warnings: tuple[str, ...] = ()

    @property
    def redundancy_fraction(self) -> float | None:
        """Redundancy as a share of the flat code's entropy; None where that is 0 bits, or 1e-9."""
        return self.redundancy / self.flat_entropy if self.flat_entropy > 1e-9 else None

    def intervals(self) -> Mapping[str, tuple[float, float]]:
        """Of the redundancy, and of its share of the flat code's bits, these taken as they are."""
        found = dict(super().intervals())
        if self.interval is not None and self.redundancy_fraction is not None:
            low, high = self.interval
            found["redundancy_fraction"] = (low / self.flat_entropy, high / self.flat_entropy)
        return found

    @property
    def lost_to_unequal_units(self) -> float:
        """Bits of the redundancy that are due to units of unequal variance."""
        return self.flat_entropy - self.unit_entropy

    @property
    def lost_to_correlation(self) -> float:
        """Bits of the redundancy that are due to correlated units (their total correlation)."""
        return self.unit_entropy - self.entropy

    @property
    def headroom(self) -> float:
        """`capacity` - `information` [bits]: gained by spreading the same variance evenly."""
        return self.capacity - self.information

    @property
    def relative_step(self) -> float:
        """`step` in units of the typical standard deviation, sqrt(total variance / width)."""
        return self.step / float(np.sqrt(self.total_variance / self.width))

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio of variances, per unit."""
        return self.total_variance / self.width / self.noise

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the numbers rest on, one sentence each."""
        read = _READ[self.step_from].format(self.relative_step)
        noise = {"step": "that of rounding to the step", "snr": "from the ratio"}
        said = [
            "The activations count as Gaussian with the measured covariance; any others of that "
            "covariance have at most this differential entropy.",
            f"Every principal component is read to the nearest multiple of {self.step:.4g} "
            f"({read}).",
            f"The noise is Gaussian, of variance {self.noise:.4g} in every direction "
            f"({noise.get(self.noise_from, 'as given')}; a signal-to-noise ratio of "
            f"{self.snr:.4g}).",
            "The flat code, and the capacity, spread the same total variance evenly over "
            f"{self.width} independent units.",
        ]
        if self.uncorrected:
            said.append(
                f"The {' and the '.join(self.uncorrected)} are those of the sample's own "
                f"eigenvalues, not corrected for {self.n_samples} samples."
            )
        if self.interval is not None:
            worth = (
                f"are worth {self.effective_samples:.0f} independent ones, as measured between "
                "documents"
                if self.effective_from == "documents"
                else "count as independent, which was not measured"
            )
            said.append(
                f"The {self.n_samples} samples {worth}. The correction for that number, and the "
                "interval, hold for Gaussian activations."
            )
        if (law := self.power_law) is not None:
            said.append(
                f"Theorem 4 takes the exponent {law.exponent:.3f} "
                f"({'as given' if law.fit is None else f'fitted {law.fit.exponent:.3f}'}) and "
                f"{law.bits:.3g} bits for the first component ("
                f"{'as given' if law.bits_given else 'of the law with this total variance'})."
            )
        if (drop := self.dropout) is not None:
            said.append(
                f"Theorem 3 takes {self.width} independent units of {drop.bits:.3g} bits "
                f"({'as given' if drop.bits_given else 'those of the flat code'}), each set to 0 "
                f"with probability {drop.rate:g}."
            )
        return tuple(said)

    def describe(self) -> str:
        """The redundancy and all assumptions, as a paragraph."""
        share = self.redundancy_fraction
        said = f"Redundancy {self.redundancy:.4g} bits per sample"
        if self.interval is not None:
            said += f" (95% interval {self.interval[0]:.4g} to {self.interval[1]:.4g})"
        if share is not None:
            said += f", {share:.1%} of the {self.flat_entropy:.4g} bits of the flat code"
        return " ".join([f"{said}.", *self.assumptions])

    def scalars(self) -> dict[str, float | int | str | bool | None]:
        """What fits into a table; every field is there whatever was asked for."""
        law, drop = self.power_law, self.dropout
        low, high = self.interval if self.interval is not None else (None, None)
        return {
            "redundancy": self.redundancy,
            "redundancy_low": low,
            "redundancy_high": high,
            "redundancy_fraction": self.redundancy_fraction,
            "lost_to_correlation": self.lost_to_correlation,
            "lost_to_unequal_units": self.lost_to_unequal_units,
            "entropy": self.entropy,
            "flat_entropy": self.flat_entropy,
            "information": self.information,
            "capacity": self.capacity,
            "step": self.step,
            "snr": self.snr,
            "corrected": not self.uncorrected,
            "exponent": law.exponent if law else None,
            "power_law_entropy": law.corrected if law else None,
            "power_law_entropy_as_published": law.as_published if law else None,
            "power_law_bits": law.bits if law else None,
            "dropout_rate": drop.rate if drop else None,
            "dropout_capacity": drop.exact if drop else None,
            "dropout_lower": drop.lower if drop else None,
            "dropout_upper": drop.upper if drop else None,
            "total_variance": self.total_variance,
            "n_samples": self.n_samples,
            "effective_samples": self.effective_samples,
            "width": self.width,
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Bits in the leading components, summed: flat, power-law and measured code.

        All three have the same total variance and step. The measured curve is that of the sample's
        eigenvalues; the dot at its end is the corrected entropy.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(layout="constrained")
        width = self.width
        flat = np.full(width, self.total_variance / width)
        curves = [("measured", self.eigenvalues, "#4c72b0", "-"), ("flat", flat, "#8c8c8c", "--")]
        if self.power_law is not None:
            law = np.arange(1, width + 1, dtype=np.float64) ** -self.power_law.exponent
            label = f"power law, exponent {self.power_law.exponent:.2f}"
            curves.append((label, law * self.total_variance / law.sum(), "#c44e52", "-."))
        for label, variances, color, style in curves:
            ranks = np.unique(np.linspace(1, variances.size, _POINTS).round().astype(int))
            bits = [gaussian_entropy(variances[:k], self.step) for k in ranks]
            ax.plot(ranks, bits, style, color=color, label=label)
        ax.plot([width], [self.entropy], "o", ms=4, color="#4c72b0", clip_on=False)
        ax.set_xlabel("leading components")
        ax.set_ylabel("bits per sample")
        ax.set_ylim(bottom=0)
        ax.legend(frameon=False)
        return ax
