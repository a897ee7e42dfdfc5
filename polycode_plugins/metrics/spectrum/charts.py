"""What the spectrum metric draws and tabulates: exponents, eigenspectra, dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from polycode_plugins.activations import Site
from polycode_plugins.metrics.spectrum.result import SpectrumResult
from polycode_plugins.pages.charts import Axis, Chart
from polycode_plugins.pages.curve_charts import Curve, curves
from polycode_plugins.pages.depth_charts import Quantity, by_depth
from polycode_plugins.pages.tables import UNDEFINED, Cell, Column, Table, column, names

#: Points drawn of one spectrum, evenly spaced on the logarithmic axis; more cannot be told apart.
_POINTS = 240
_BROKEN = "not one power law"


def exponent_chart(id: str, sites: Sequence[Site], results: Sequence[SpectrumResult]) -> Chart:
    """Exponents by depth with their intervals; crosses where there is no one exponent."""
    intervals = [r.interval for r in results]
    broken = [r.power_law.broken for r in results]
    texts = []
    for result, interval in zip(results, intervals, strict=True):
        lines = [f"exponent {result.exponent:.3f}"]
        if interval is not None:
            lines.append(f"95% interval {interval[0]:.3f} to {interval[1]:.3f}")
        texts.append(
            [*lines, *_break(result), f"{samples_text(result, ' samples')}, width {result.width:,}"]
        )
    if all(i is None for i in intervals):
        bars = "This fit has no interval that could be trusted, so there are no error bars."
    elif any(i is None for i in intervals):
        bars = "Bars are 95% intervals, where there is one."
    else:
        bars = "Bars are 95% intervals."
    return by_depth(
        f"{id}-exponent",
        "Exponent by depth",
        f"How steeply the eigenvalues of each site fall. {bars}",
        Axis("exponent (no unit)"),
        sites,
        [
            Quantity(
                "exponent",
                [r.exponent for r in results],
                texts,
                [i[0] if i else None for i in intervals] if any(intervals) else None,
                [i[1] if i else None for i in intervals] if any(intervals) else None,
                broken,
            )
        ],
        level=(1.0, "exponent 1"),
        notes=[("warn", "✕", _BROKEN)] if any(broken) else [],
    )


def spectra_chart(id: str, sites: Sequence[Site], results: Sequence[SpectrumResult]) -> Chart:
    """All spectra on logarithmic axes, coloured by depth, each with its fitted line on demand."""
    spectra = [Curve(s.name, *_drawn(r)) for s, r in zip(sites, results, strict=True)]
    lines = []
    for site, result in zip(sites, results, strict=True):
        fit = result.power_law
        ends = [float(rank) for rank in fit.ranks]
        heights = [math.exp(fit.intercept) * rank**fit.line_slope for rank in ends]
        label = [site.name, f"fitted line, exponent {result.exponent:.3f}", *_break(result)]
        lines.append(Curve(f"fit of {site.name}", ends, heights, label))
    corrected = (
        " They describe the sample, while the exponent is corrected for the finite number of "
        "samples, so it can differ from their slope."
        if any(r.power_law.fit == "debiased" for r in results)
        else ""
    )
    return curves(
        f"{id}-spectra",
        "Eigenspectra",
        "Eigenvalues in descending order on logarithmic axes: a power law is a straight line. "
        f"Dashed lines are drawn through the ranks that were fitted.{corrected}",
        Axis("rank (1 is the largest)", log=True),
        Axis("eigenvalue (activation squared)", log=True),
        spectra,
        kind="spectrum",
        beside=("fitted line", lines),
    )


def dimensions_chart(id: str, sites: Sequence[Site], results: Sequence[SpectrumResult]) -> Chart:
    """Participation ratio and effective rank by depth."""
    ratios = [r.participation_ratio for r in results]
    ranks = [r.effective_rank for r in results]
    texts = [
        [
            f"{name} {UNDEFINED if value is None else format(value, ',.1f')}",
            f"of {r.width:,} directions",
        ]
        for name, values in (("participation ratio", ratios), ("effective rank", ranks))
        for value, r in zip(values, results, strict=True)
    ]
    known = [v for v in [*ratios, *ranks] if v]
    spread = max(known) / min(known) if known else 1
    return by_depth(
        f"{id}-dimensions",
        "Dimensionality by depth",
        "How many directions the code uses. The participation ratio counts directions weighted by "
        "their variance (n equal ones give n); the effective rank also counts the weak ones. "
        "Both are corrected for the finite number of samples.",
        Axis("directions (count)", log=spread > 50, zero=spread <= 50),
        sites,
        [
            Quantity("participation ratio", ratios, texts[: len(sites)]),
            Quantity("effective rank", ranks, texts[len(sites) :]),
        ],
    )


def spectrum_table(id: str, sites: Sequence[Site], results: Sequence[SpectrumResult]) -> Table:
    """All numbers of all sites."""
    laws = [r.power_law for r in results]
    columns = [
        names("site", [s.name for s in sites]),
        column("depth", range(len(sites))),
        column(
            "exponent",
            [r.exponent for r in results],
            digits=3,
            help="decay of the power law: eigenvalue in proportion to 1 / rank^exponent",
        ),
        _intervals(results),
        Column(
            "power law",
            [_verdict(result) for result in results],
            help="whether two power laws describe the spectrum better than one, and the rank at "
            "which the second begins; tested at the 5% level, which holds for Gaussian "
            "activations: about one sound site in twenty is called broken",
        ),
        column(
            "participation ratio",
            [r.participation_ratio for r in results],
            help="(Σλ)² / Σλ², corrected for the finite number of samples",
        ),
        column(
            "effective rank",
            [r.effective_rank for r in results],
            help="exp of the entropy of the normalised singular values, corrected for the finite "
            "number of samples",
        ),
        Column(
            "samples",
            [Cell(samples_text(r), repr(float(r.n_samples))) for r in results],
            numeric=True,
            help="vectors the covariance is of and, since tokens of one text are correlated, how "
            "many independent ones they are worth; the exponent is corrected for that number",
        ),
        column(
            "R²",
            [p.r_squared for p in laws],
            digits=3,
            help="share of the variance of the log eigenvalues that the fit explains",
        ),
        Column(
            "ranks",
            [Cell(f"{p.ranks[0]:,}–{p.ranks[1]:,}", repr(float(p.ranks[1]))) for p in laws],
            numeric=True,
            help="first and last rank that was fitted",
        ),
        column("width", [r.width for r in results], help="length of these vectors"),
    ]
    return Table(f"{id}-table", "All sites", columns, leading=8)


def _intervals(results: Sequence[SpectrumResult]) -> Column:
    low_high = [r.interval for r in results]
    cells = [
        Cell(f"{i[0]:.3f} – {i[1]:.3f}", repr(float(i[1] - i[0]))) if i else Cell(UNDEFINED)
        for i in low_high
    ]
    return Column("95% interval", cells, numeric=True, help="of the exponent; sorted by its length")


def samples_text(result: SpectrumResult, noun: str = "") -> str:
    """The number of samples, and how many independent ones they are worth if fewer."""
    worth = result.effective_samples
    fewer = f" (worth {worth:,.0f})" if worth < result.n_samples else ""
    return f"{result.n_samples:,}{noun}{fewer}"


def _break(result: SpectrumResult) -> list[str]:
    """Lines for a hover label of a spectrum that breaks."""
    law = result.power_law
    if not law.broken:
        return []
    e = law.evidence
    if e is None or e.slope_before is None or e.slope_after is None:
        return [_BROKEN]
    return [_BROKEN, f"slope {e.slope_before:.2f} before rank {e.rank}, {e.slope_after:.2f} after"]


def _verdict(result: SpectrumResult) -> Cell:
    law = result.power_law
    if law.broken:
        rank = law.evidence.rank if law.evidence is not None else 0
        return Cell(f"broken at {rank}" if rank else "broken", f"2 {rank:09d}", flag=True)
    if law.irregular:
        return Cell("irregular", "1 2", flag=True)
    return Cell("not tested", "1 1") if law.evidence is None else Cell("no break", "0")


def _drawn(result: SpectrumResult) -> tuple[list[float], list[float]]:
    """Ranks and eigenvalues to draw: those above rounding error, thinned to what can be seen."""
    values = np.asarray(result.eigenvalues, dtype=np.float64)
    count = int((values > values[0] * 1e-14).sum())
    ranks = np.unique(np.geomspace(1, count, _POINTS).round().astype(np.int64))
    return ranks.astype(float).tolist(), values[ranks - 1].tolist()
