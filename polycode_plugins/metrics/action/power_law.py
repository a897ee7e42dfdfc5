"""The relation between the static action and the exponent of the spectrum, beside measurement.

Marshall & Kirchner 2024, supplement 2.5, which drops the factor k/m and sums to infinity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from polycode_plugins import theory
from polycode_plugins.errors import DataError

if TYPE_CHECKING:
    from polycode_plugins.metrics.spectrum.result import SpectrumResult


@dataclass(frozen=True)
class PowerLawAction:
    """The static action that supplement 2.5 derives from a power law, beside the measured one.

    Attributes:
        exponent: of lambda_i = scale i^-exponent.
        width, dimensions: m and k.
        scale: the largest eigenvalue; the actions are in its units (activation squared).
        corrected: scale (k / 2m) sum_{i <= m} i^-exponent.
        as_published: scale zeta(exponent) / 2, without k/m and with infinitely many neurons; None
            for an exponent of at most 1, where zeta diverges.
        measured: exact expectation from the eigenvalues themselves; None without a spectrum.
    """

    exponent: float
    width: int
    dimensions: int
    scale: float
    corrected: float
    as_published: float | None
    measured: float | None = None


def power_law_action(
    spectrum: SpectrumResult | None = None,
    *,
    exponent: float | None = None,
    width: int | None = None,
    dimensions: int = 3,
) -> PowerLawAction:
    """The static action that a power-law spectrum implies, see `PowerLawAction`.

    Give a measured spectrum, whose largest eigenvalue sets the scale, or `exponent` and `width` of
    one with largest eigenvalue 1. Source: Marshall & Kirchner 2024, supplement 2.5.

    Raises:
        DataError: without either, with both, and for an exponent below 0.
    """
    scale, measured = 1.0, None
    if spectrum is not None:
        if exponent is not None or width is not None:
            raise DataError("give a spectrum, or exponent and width, not both")
        # Noise can make the exponent of a flat spectrum negative, which sorted values rule out.
        exponent, width = max(0.0, spectrum.exponent), spectrum.width
        scale = float(spectrum.eigenvalues[0])
        shrink = (spectrum.n_samples - 1) / spectrum.n_samples
        moments = theory.action_moments(spectrum.eigenvalues, dimensions, width)
        measured = shrink * moments.expected
    if exponent is None or width is None:
        raise DataError("give a measured spectrum, or both exponent and width")
    published = None
    if exponent > 1:
        published = scale * theory.power_law_action(width, exponent, dimensions, "as_published")
    return PowerLawAction(
        exponent=exponent,
        width=width,
        dimensions=dimensions,
        scale=scale,
        corrected=scale * theory.power_law_action(width, exponent, dimensions),
        as_published=published,
        measured=measured,
    )
