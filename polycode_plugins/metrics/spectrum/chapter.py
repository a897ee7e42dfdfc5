"""The section of the spectrum metric: how to read it, what it found, what not to rely on."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from polycode_plugins.activations import Site
from polycode_plugins.metrics.chapter import View
from polycode_plugins.metrics.spectrum.charts import (
    dimensions_chart,
    exponent_chart,
    spectra_chart,
    spectrum_table,
)
from polycode_plugins.metrics.spectrum.dimension_tables import directions_table, measures_table
from polycode_plugins.metrics.spectrum.result import SpectrumResult
from polycode_plugins.metrics.spectrum.static_action import action_chart, action_table
from polycode_plugins.pages.pages import Part, Prose


def spectrum_parts(view: View) -> list[Part]:
    """The parts of the section, in order."""
    results: Sequence[SpectrumResult] = view.results
    parts: list[Part] = [
        Prose(
            [
                "The activations of a site vary more in some directions than in others. The "
                "eigenvalues of their covariance say how much: the first is the variance along the "
                "direction that varies most, and so on down. In many networks they fall off as a "
                "power law, in proportion to 1 / rank^exponent, so that one number, the exponent, "
                "says how steeply.",
                SpectrumResult.reading,
                "Whether one power law describes a site is tested. The test calls one sound site "
                "in twenty broken if its activations are Gaussian, and more of them if they are "
                "heavy-tailed or mostly zero; where it does, read the curve and not the number.",
            ]
        )
    ]
    drawn = (view.id, view.sites, results)
    broken = sum(r.power_law.broken for r in results)
    # A chart of numbers that are not to be read comes after what can be read, or not at all.
    exponents: list[Part] = [exponent_chart(*drawn)] if broken < len(results) else []
    begin, end = (exponents, []) if 2 * broken <= len(results) else ([], exponents)
    theory = action_chart(*drawn)
    if not exponents:
        parts.append(
            Prose(
                [
                    "No site's spectrum follows one power law, so there is no chart of exponents; "
                    "the curves say how the eigenvalues fall, and the tables have all numbers."
                ]
            )
        )
    parts += [
        *begin,
        spectra_chart(*drawn),
        dimensions_chart(*drawn),
        *end,
        *([theory] if theory is not None else []),
        spectrum_table(*drawn),
        measures_table(*drawn),
        directions_table(*drawn),
        action_table(*drawn),
    ]
    return parts


def findings(sites: Sequence[Site], results: Sequence[SpectrumResult]) -> str:
    """The main numbers in one sentence."""
    if len(results) == 1:
        return (
            f"The exponent of {sites[0].name} is {_exponent(results[0])}, and its code has "
            f"about as many dimensions as {results[0].participation_ratio:,.1f} equal directions "
            f"out of {results[0].width:,} would."
        )
    ratios = [r.participation_ratio for r in results]
    dimensions = (
        f"The participation ratio runs from {min(ratios):,.1f} to {max(ratios):,.1f} directions."
    )
    whole = [i for i, r in enumerate(results) if not r.power_law.broken]
    if not whole:
        return f"No site's spectrum follows one power law. {dimensions}"
    if len(whole) == 1:
        one = whole[0]
        return (
            f"The exponent is {_exponent(results[one])} at {sites[one].name}; no single law holds "
            f"at any other of {len(results)} sites. {dimensions}"
        )
    low = min(whole, key=lambda i: results[i].exponent)
    high = max(whole, key=lambda i: results[i].exponent)
    ends = results[low].interval, results[high].interval
    apart = ""
    if ends[0] is None or ends[1] is None:
        apart = ", not both with an interval: these are not told apart"
    elif ends[0][1] >= ends[1][0]:
        apart = ", whose intervals meet: these are not told apart"
    over, others = f"{len(whole)} of {len(results)}", " (no single law holds at the others)"
    if len(whole) == len(results):
        over, others = str(len(results)), ""
    return (
        f"The exponent runs from {_exponent(results[low])} at {sites[low].name} to "
        f"{_exponent(results[high])} at {sites[high].name}{apart}; the median is "
        f"{median(results[i].exponent for i in whole):.2f} over {over} sites{others}. {dimensions}"
    )


def _exponent(result: SpectrumResult) -> str:
    """The exponent with its interval, and whether it is to be read at all."""
    low_high = result.interval
    said = f"{result.exponent:.2f}"
    if low_high is not None:
        said += f" ({low_high[0]:.2f} to {low_high[1]:.2f})"
    return f"{said}, which is not to be read" if result.power_law.broken else said
