"""The section of the spectrum metric: how to read it, what it found, what not to rely on."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from polycode_plugins.activations import Site
from polycode_plugins.metrics.chapter import View, own_warnings, where
from polycode_plugins.metrics.spectrum.charts import (
    dimensions_chart,
    exponent_chart,
    spectra_chart,
    spectrum_table,
)
from polycode_plugins.metrics.spectrum.metric import SpectrumResult
from polycode_plugins.metrics.spectrum.static_action import action_chart, action_table
from polycode_plugins.pages.pages import Part, Prose, Warnings

#: Below this many samples per unit of width the published regressions are visibly biased.
_SAMPLES_PER_UNIT = 10


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
                findings(view.sites, results),
            ]
        )
    ]
    if warnings := [*spectrum_warnings(view.sites, results), *own_warnings(view)]:
        parts.append(Warnings(warnings))
    parts += [
        exponent_chart(view.id, view.sites, results),
        spectra_chart(view.id, view.sites, results),
        dimensions_chart(view.id, view.sites, results),
        action_chart(view.id, view.sites, results),
        spectrum_table(view.id, view.sites, results),
        action_table(view.id, view.sites, results),
    ]
    return parts


def findings(sites: Sequence[Site], results: Sequence[SpectrumResult]) -> str:
    """The main numbers in one sentence."""
    if len(results) == 1:
        return (
            f"Here the exponent of {sites[0].name} is {results[0].exponent:.2f}, and its code has "
            f"about as many dimensions as {results[0].participation_ratio:,.1f} equal directions "
            f"out of {results[0].width:,} would."
        )
    ratios = [r.participation_ratio for r in results]
    dimensions = (
        f"The participation ratio runs from {min(ratios):,.1f} to {max(ratios):,.1f} directions."
    )
    whole = [i for i, r in enumerate(results) if not r.power_law.broken]
    if not whole:
        return f"Here no site follows one power law. {dimensions}"
    low = min(whole, key=lambda i: results[i].exponent)
    high = max(whole, key=lambda i: results[i].exponent)
    over = f"{len(whole)} of {len(results)}" if len(whole) < len(results) else f"{len(results)}"
    return (
        f"Here the exponent runs from {results[low].exponent:.2f} ({sites[low].name}) to "
        f"{results[high].exponent:.2f} ({sites[high].name}), with a median of "
        f"{median(results[i].exponent for i in whole):.2f} over {over} sites"
        f"{' (those that follow one power law)' if len(whole) < len(results) else ''}. {dimensions}"
    )


def spectrum_warnings(sites: Sequence[Site], results: Sequence[SpectrumResult]) -> list[str]:
    """What keeps the numbers from meaning what they seem to."""
    total = len(sites)

    def of(flags: Sequence[bool]) -> list[str]:
        return [site.name for site, flag in zip(sites, flags, strict=True) if flag]

    said = []
    if broken := of([r.power_law.broken for r in results]):
        said.append(
            f"{where(broken, total)} the eigenvalues do not follow one power law: their slope "
            "changes along the ranks, so no single exponent describes them. Read their curve, not "
            "their exponent; the table says at which rank it breaks."
        )
    if loose := of([r.irregular and not r.power_law.broken for r in results]):
        said.append(
            f"{where(loose, total)} the eigenvalues scatter around the fitted law more than those "
            "of Gaussian activations would: the spectrum goes in steps or waves, or the "
            "activations are far from Gaussian. The interval is widened for it; look at the curve."
        )
    if few := of([r.n_samples <= r.width for r in results]):
        said.append(
            f"{where(few, total)} there are no more samples than units, so the smallest "
            "eigenvalues are exactly zero, the drawn spectrum falls too steeply at its end, and "
            "the effective rank is too low. The participation ratio and the fit 'debiased' allow "
            "for it; more samples would show more."
        )
    biased = [
        r.power_law.fit != "debiased" and r.n_samples < _SAMPLES_PER_UNIT * r.width for r in results
    ]
    if short := of(biased):
        fit = results[biased.index(True)].power_law.fit
        said.append(
            f"{where(short, total)} there are fewer than {_SAMPLES_PER_UNIT} samples for each "
            f"unit, too few for the regression '{fit}': its exponent is biased by the finite "
            "number of samples. Take more samples, or the fit 'debiased'."
        )
    return said
