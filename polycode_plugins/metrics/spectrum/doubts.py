"""What keeps the numbers of a spectrum from meaning what they seem to, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polycode_plugins.metrics.base import Grave

if TYPE_CHECKING:
    from polycode_plugins.metrics.spectrum.first_direction import FirstDirection
    from polycode_plugins.metrics.spectrum.result import SpectrumResult

#: Below this many samples per unit of width the published regressions are visibly biased.
SAMPLES_PER_UNIT = 10


def spectrum_doubts(result: SpectrumResult) -> tuple[str, ...]:
    """Sentences on one site's spectrum; none is good."""
    said = []
    direction, law = result.first_direction, result.power_law
    if direction is not None and direction.rules:
        said += _ruling(result, direction)
    if law.untested is not None:
        said.append(f"whether the spectrum is one power law was not tested: {law.untested}.")
        if result.effective_from == "not measured":
            said.append(
                "how far samples depend on one another was not measured, so all intervals take "
                "them for independent and are too narrow where they are not, as tokens of a text."
            )
    if law.broken:
        said.append(
            Grave(
                "the eigenvalues do not follow one power law over these ranks: their slope "
                "changes, so no single exponent describes them. What there is of one law: "
                f"{law.grade}."
            )
        )
    elif law.irregular:
        said.append(
            "the eigenvalues scatter around the fitted law more than those of Gaussian activations "
            "would: the spectrum goes in steps or waves, or the activations are far from Gaussian. "
            "The interval is widened for it; look at the curve."
        )
    if result.row_spread > 1:
        said.append(
            f"single rows add {result.row_spread:.1f} times as much to the error of these measures "
            "as Gaussian rows would, as those of sparse or heavy-tailed features do. The intervals "
            "of the measures of dimension are widened for it; that of the exponent is not, and "
            "such rows may be taken for a broken law."
        )
    if result.n_samples <= result.width:
        said.append(
            "there are no more samples than units, so the smallest eigenvalues are exactly zero "
            "and the drawn spectrum falls too steeply at its end. The fit 'debiased' and the "
            "corrected measures allow for it; more samples would show more."
        )
    if result.dimensions.effective_rank.value is None:
        said.append(
            f"the effective rank is not given: {result.dimensions.effective_rank.why}. Give more "
            "samples."
        )
    if law.fit != "debiased" and result.n_samples < SAMPLES_PER_UNIT * result.width:
        said.append(
            f"there are fewer than {SAMPLES_PER_UNIT} samples for each unit, too few for the "
            f"regression '{law.fit}': its exponent is biased by the finite number of samples. Take "
            "more samples, or the fit 'debiased'."
        )
    return tuple(said)


def _ruling(result: SpectrumResult, direction: FirstDirection) -> list[str]:
    """Of a direction that a few rows make."""
    assert direction.half_rows is not None
    few = f"{direction.half_rows:,.0f} of {result.n_samples:,} rows make"
    if round(direction.half_rows) == 1:
        few = f"1 of {result.n_samples:,} rows makes"
    ratio = result.participation_ratio
    if direction.remainder is not None:
        left = direction.remainder
        other = left.dimensions.participation_ratio.value
        instead = (
            f"Without {left.n_rows:,} of them the first direction has {left.first_share:.0%} and "
            f"the participation ratio is {other:,.1f}, not {ratio:,.1f}."
        )
    else:
        instead = f"There are no numbers without them: {direction.why}."
    largest = f"The largest is {direction.rows[0]}."
    if direction.places and len(direction.places[0][0]) == 1:
        (place,), part = direction.places[0]
        largest += f" At position {place} stand {part:.0%} of them."
    return [
        f"one direction holds {direction.share:.0%} of the variance, and {few} half of it: the "
        f"numbers describe these rows more than all others. {largest} {instead}"
    ]
