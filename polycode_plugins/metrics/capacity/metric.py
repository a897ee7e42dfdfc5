"""The `capacity` metric: how many bits a layer's code carries, and how many it gives up.

Marshall & Kirchner 2024 bound the entropy of a code with a power-law spectrum (Theorem 4) and the
capacity of units under dropout (Theorem 3). Both are given at the values measured here, beside the
entropy and information of the measured spectrum itself. All logarithms are to base 2, and bits are
per sample: per token or position, or per row with `positions="features"`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polycode_plugins.activations import Positions, Site
from polycode_plugins.errors import DataError
from polycode_plugins.metrics.accumulators import Covariance, Precision
from polycode_plugins.metrics.base import Accumulator, Metric, Result
from polycode_plugins.metrics.capacity.code_entropy import (
    Code,
    Entropy,
    entropy_of_rows,
    redundancy_gain,
    redundancy_pull,
)
from polycode_plugins.metrics.capacity.redundancy_spread import redundancy_spread
from polycode_plugins.metrics.capacity.result import (
    CapacityResult,
    DropoutCapacity,
    PowerLawBound,
)
from polycode_plugins.metrics.influences import Influences
from polycode_plugins.metrics.spectrum.influences import influences
from polycode_plugins.metrics.spectrum.law.power_law import FitName, checked_ranks, fit_power_law
from polycode_plugins.metrics.spectrum.priority_sample import PrioritySample
from polycode_plugins.metrics.spectrum.rows.correlation import RowCorrelation
from polycode_plugins.metrics.spectrum.rows.dependence import RowDependence
from polycode_plugins.metrics.spectrum.rows.groups import RowGroups
from polycode_plugins.theory import (
    dropout_capacity,
    gaussian_capacity,
    gaussian_entropy,
    gaussian_information,
    power_law_entropy,
)

Floats = NDArray[np.float64]

#: Precision of the reading where none is asked for, in units of the typical standard deviation.
RELATIVE_STEP = 0.1
# A flat code carries the most only while its units are wider than about a third of the step.
COARSE = 2.5
# Relative rounding noise of a covariance gathered in float32 (see `Covariance`).
FLOAT32_NOISE = 1e-6


@dataclass(frozen=True)
class Capacity(Metric):
    """Entropy, information and redundancy of a layer's code, from its measured covariance.

    A continuous activation has no entropy until one says how precisely it is read. By default every
    component is read to a tenth of the typical standard deviation of a unit, sqrt(total variance /
    width): relative to the layer's own scale, so that layers compare and scaling changes nothing.
    An absolute `step` (the resolution of a number format, say) compares layers as they are: the
    same code 2^k times larger then carries k more bits per component that is wider than the step.

    Attributes:
        step: precision of the reading, in units of activation.
        relative_step: the same in units of the typical standard deviation (default 0.1).
        noise: variance of the noise for information and capacity, in units of activation squared.
        snr: the same as signal-to-noise ratio: (total variance / width) / noise, a ratio of
            variances and not decibels. Default of both: the noise of rounding, step^2 / 12.
        exponent: of the power law; default: fitted as by `Spectrum` with `fit`, `ranks`, `seed`.
        bits: precision n of a neuron in Theorems 3 and 4. Default: what the reading at `step` gives
            (of the law's first component, or of a unit of the flat code).
        dropout: rate of dropout; default: no statement about dropout.
        fit, ranks, seed: see `Spectrum`.
        positions: for sites with positions, whether these are samples or features.
        precision: of the covariance's products, see `Covariance`.

    Raises:
        DataError: for a setting without a meaning, or two that say the same thing.
    """

    name: ClassVar[str] = "capacity"
    side_by_side: ClassVar[bool] = True
    result: ClassVar[type[Result]] = CapacityResult

    step: float | None = None
    relative_step: float | None = None
    noise: float | None = None
    snr: float | None = None
    exponent: float | None = None
    bits: float | None = None
    dropout: float | None = None
    fit: FitName = "debiased"
    ranks: tuple[int, int | None] | None = None
    seed: int = 0
    positions: Positions = "samples"
    precision: Precision = "float64"

    def __post_init__(self) -> None:
        super().__post_init__()
        for one, other in (("step", "relative_step"), ("noise", "snr")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise DataError(f"{one} and {other} say the same thing twice; give one of them")
        for name in ("step", "relative_step", "noise", "snr"):
            _check(name, getattr(self, name), positive=True)
        for name in ("exponent", "bits"):
            _check(name, getattr(self, name))
        _check("dropout", self.dropout, most=1)
        if self.ranks is not None:
            checked_ranks(self.ranks)

    def accumulators(self) -> Mapping[str, Accumulator]:
        """What `Spectrum` has: a covariance, what tells how dependent the samples are, and those
        of most weight."""
        return {
            "covariance": Covariance(self.positions, self.precision),
            "groups": RowGroups(self.positions),
            "rows": PrioritySample(self.positions),
        }

    def compute(self, accumulators: Mapping[str, Accumulator], site: Site) -> CapacityResult:
        """The capacity at one site.

        Raises:
            DataError: for fewer than two samples or a constant layer.
        """
        covariance = cast(Covariance, accumulators["covariance"])
        groups = cast(RowGroups, accumulators["groups"])
        with covariance.reading():
            return self._read(covariance, groups, cast(PrioritySample, accumulators["rows"]))

    def _read(
        self, covariance: Covariance, groups: RowGroups, rows: PrioritySample
    ) -> CapacityResult:
        # Before the eigenvalues, which come with its eigenvectors.
        dependence = groups.dependence(covariance)
        values = covariance.eigenvalues().cpu().numpy()
        width, n = covariance.width, covariance.n_samples
        assert width is not None
        means, variances = (m.cpu().numpy() for m in (covariance.mean(), covariance.variances()))
        eps = np.finfo(np.float64).eps
        if values[0] <= eps**2 * (float((means**2).sum()) + 1e-300):
            raise DataError(
                f"the activations are constant over {n} samples, so there is no code to measure; "
                "leave the site out"
            )
        # Rounding of the eigensolver is no information, however fine the step.
        values = np.where(values > width * eps * values[0], values, 0.0)
        effective = max(2.0, dependence.effective(n))
        unit = float(values.sum()) / width
        relative_step = RELATIVE_STEP if self.relative_step is None else self.relative_step
        step = relative_step * unit**0.5 if self.step is None else self.step
        code = Code.of_rows(values, width, n, dependence.correlation, step**2 / 12)
        noise = step**2 / 12 if self.snr is None else unit / self.snr
        noise = noise if self.noise is None else self.noise

        def entropy_with(rows: RowCorrelation, spread: float = 1.0) -> Entropy:
            relative = self.step is None
            return entropy_of_rows(
                values, width, n, rows, step, variances, relative=relative, spread=spread
            )

        spread = redundancy_spread(
            covariance,
            values[values > 0],
            step**2 / 12,
            rows,
            relative=self.step is None,
            square=n / code.n_samples,
        )
        entropy = entropy_with(dependence.correlation, spread)
        interval, tails = entropy.interval, []
        if interval is not None and dependence.widest != dependence.correlation:
            # Heavy-tailed or mostly silent rows: which of both is not known, so it covers both.
            other = entropy_with(dependence.widest).interval
            if other is None:
                interval = None
                tails = ["the rows are too heavy-tailed, or too sparse, for an interval"]
            else:
                interval = min(interval[0], other[0]), max(interval[1], other[1])
        informed = code.information(
            noise, relative=self.noise is None and (self.snr is not None or self.step is None)
        )
        naive = gaussian_information(values, noise)
        law, doubts = self._power_law(values, width, n, step, dependence)
        uncorrected = []
        if entropy.interval is None:
            uncorrected.append("entropy")
        if informed is None:
            uncorrected.append("information")
        return CapacityResult(
            redundancy=entropy.flat - entropy.bits,
            interval=interval,
            entropy=entropy.bits,
            entropy_naive=entropy.naive,
            flat_entropy=entropy.flat,
            unit_entropy=entropy.units,
            information=naive if informed is None else informed,
            information_naive=naive,
            capacity=gaussian_capacity(np.full(width, noise), code.total).bits,
            step=step,
            noise=noise,
            step_from="relative_step" if self.step is None else "step",
            noise_from="noise" if self.noise else "snr" if self.snr else "step",
            uncorrected=tuple(uncorrected),
            eigenvalues=values,
            total_variance=code.total,
            n_samples=n,
            effective_samples=effective,
            effective_from="documents" if dependence.measured else "not measured",
            width=width,
            positions=self.positions,
            power_law=law,
            dropout=self._dropout(entropy.flat / width, width),
            warnings=tuple(
                f"{said}."
                for said in (*doubts, *tails, *self._doubts(code, n, step, noise, uncorrected))
            ),
        )

    def influences(
        self, accumulators: Mapping[str, Accumulator], result: Result, samples: Tensor
    ) -> Influences:
        """On the redundancy and its share; see `Metric.influences`."""
        assert isinstance(result, CapacityResult)
        if result.interval is None:
            return Influences({})
        values, noise = result.eigenvalues[result.eigenvalues > 0], result.step**2 / 12
        relative = result.step_from == "relative_step"
        pull = redundancy_pull(values, result.width, noise, relative=relative)
        gain = redundancy_gain(values, noise, pull)
        covariance = cast(Covariance, accumulators["covariance"])
        with covariance.reading():
            rows = cast(RowGroups, accumulators["groups"]).dependence(covariance)
            found = influences(covariance, {"redundancy": gain}, samples)
        if result.redundancy_fraction is not None:
            found["redundancy_fraction"] = found["redundancy"] / result.flat_entropy
        return Influences(found, rows.measured and rows.correlation.independent)

    def _doubts(
        self, code: Code, n: int, step: float, noise: float, uncorrected: Sequence[str]
    ) -> list[str]:
        """What keeps the entropy and the information from meaning what they seem to."""
        said = []
        if uncorrected:
            worth = f" (of {n} they are worth {code.n_samples:.0f})" if code.n_samples < n else ""
            said.append(
                f"there are too few samples{worth} for the width to know the weak components, so "
                f"the {' and the '.join(uncorrected)} are those of the sample: too low, and the "
                "redundancy too high; give more samples, or read less precisely"
            )
        if step > COARSE * code.typical:
            said.append(
                "the step is wider than most units, so that nearly all of the code is lost in "
                "reading it and an even spread is no longer the best one; give a smaller step"
            )
        rows_kept = n <= code.width
        exact = self.precision == "float64" or rows_kept
        floor = code.eigenvalues[0] * (
            code.width * np.finfo(np.float64).eps if exact else FLOAT32_NOISE
        )
        if min(step**2 / 12, noise) < floor:
            said.append(
                "the step or the noise is below what rounding adds to the weakest components, so "
                "their bits are not real; read less precisely"
                + ("" if exact else ", or use precision='float64'")
            )
        return said

    def _power_law(
        self, values: Floats, width: int, n: int, step: float, dependence: RowDependence
    ) -> tuple[PowerLawBound | None, list[str]]:
        """Theorem 4 for the law of the measured total variance, and what speaks against it."""
        fit, doubts = None, []
        exponent = self.exponent
        if exponent is None:
            try:
                fit = fit_power_law(
                    values,
                    n,
                    width=width,
                    fit=self.fit,
                    ranks=self.ranks,
                    seed=self.seed,
                    rows=dependence.correlation,
                    widest=dependence.widest,
                    untested=dependence.untested(n),
                )
            except DataError as error:
                why = f"no power law could be fitted, so Theorem 4 is left out: {error}"
                return None, [f"{why}; or give its exponent"]
            if fit.broken:
                doubts.append(
                    "the eigenvalues do not follow one power law, so the bound of Theorem 4 is "
                    "that of a code this is not; read the measured entropy"
                )
            # Noise can make the exponent of a flat spectrum negative, which sorted values rule out.
            exponent = max(0.0, fit.exponent)
        first = float(values.sum() / (np.arange(1, width + 1, dtype=np.float64) ** -exponent).sum())
        bits = gaussian_entropy([first], step) if self.bits is None else self.bits
        return PowerLawBound(
            exponent=exponent,
            bits=bits,
            bits_given=self.bits is not None,
            corrected=power_law_entropy(width, bits, exponent),
            as_published=power_law_entropy(width, bits, exponent, mode="as_published"),
            fit=fit,
        ), doubts

    def _dropout(self, flat: float, width: int) -> DropoutCapacity | None:
        if self.dropout is None:
            return None
        bits = flat if self.bits is None else self.bits
        return DropoutCapacity(
            rate=self.dropout,
            bits=bits,
            bits_given=self.bits is not None,
            exact=width * dropout_capacity(bits, self.dropout),
            lower=width * dropout_capacity(bits, self.dropout, "lower"),
            additive=width * dropout_capacity(bits, self.dropout, "additive"),
            upper=width * dropout_capacity(bits, self.dropout, "upper"),
        )


def _check(name: str, value: float | None, *, positive: bool = False, most: float = np.inf) -> None:
    if value is None:
        return
    rule = "positive" if positive else "at least 0"
    rule += f" and at most {most:g}" if most < np.inf else " and finite"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise DataError(f"{name} must be a number, {rule}, and it is {value!r}")
    right = value > 0 if positive else value >= 0
    if not right or value > most or not np.isfinite(value):
        raise DataError(f"{name} must be {rule}, and it is {value:g}")
