"""Tables of how many directions a code uses, and of first directions that few rows make."""

from __future__ import annotations

from collections.abc import Sequence

from polycode_plugins.activations import Site
from polycode_plugins.metrics.spectrum.effective_dimensions import Estimate
from polycode_plugins.metrics.spectrum.first_direction import Remainder
from polycode_plugins.metrics.spectrum.result import SpectrumResult
from polycode_plugins.pages.tables import UNDEFINED, Cell, Column, Table, column, names

_MEANINGS = {
    "participation_ratio": "1 / Σp², p = λ / Σλ: directions weighted by their variance",
    "effective_rank": "exp of the entropy of the normalised singular values √λ (RankMe)",
    "stable_rank": "Σλ / λ₁",
    "spectral_entropy": "−Σ p ln p in nats: matrix-based entropy of order 1",
    "matrix_entropy": "−log₂ Σp² in bits: matrix-based entropy of order 2",
    "rank_90": "leading directions that hold 90% of the variance",
    "rank_95": "leading directions that hold 95% of the variance",
    "rank_99": "leading directions that hold 99% of the variance",
}
_LARGEST = 3  # rows that a cell names


def measures_table(id: str, sites: Sequence[Site], results: Sequence[SpectrumResult]) -> Table:
    """Every measure with its interval and that of the sample."""
    columns = [names("site", [site.name for site in sites])]
    for name, meaning in _MEANINGS.items():
        found = [result.dimensions.named()[name] for result in results]
        columns.append(
            Column(
                name.replace("_", " "),
                [_estimate(one) for one in found],
                numeric=True,
                help=f"{meaning}; corrected for the number of samples, (95% interval), and of the "
                "sample itself after the stroke",
            )
        )
    return Table(f"{id}-measures", "Measures of the spectrum", columns)


def directions_table(id: str, sites: Sequence[Site], results: Sequence[SpectrumResult]) -> Table:
    """The first direction of every site, and the spectrum with and without the rows that rule."""
    found = [r.first_direction for r in results]
    left = [None if d is None else d.remainder for d in found]
    rows = ["; ".join(map(str, d.rows[:_LARGEST])) if d is not None else "" for d in found]
    columns = [
        names("site", [site.name for site in sites]),
        column(
            "share of the variance",
            [float(r.eigenvalues[0] / r.total_variance) for r in results],
            digits=3,
            help="share of the total variance in the first direction",
        ),
        column(
            "rows that make half",
            [None if d is None else d.half_rows for d in found],
            digits=0,
            help="how many rows, those that differ most along it, make half of its variance; an "
            "estimate where more than 256 do",
        ),
        column(
            "share of rows",
            [None if d is None else d.half_share for d in found],
            digits=4,
            help="the same as a share of all rows; about .124 for Gaussian rows",
        ),
        Column(
            "rules",
            [Cell("yes", "1", flag=True) if d and d.rules else Cell("no", "0") for d in found],
            help="whether it has a fifth of the variance and at most 2.5% of the rows make half",
        ),
        Column("largest rows", [Cell(text or UNDEFINED, text) for text in rows]),
        column("rows left out", [None if one is None else one.n_rows for one in left]),
        column(
            "its share without them",
            [None if one is None else one.first_share for one in left],
            digits=3,
        ),
        _without("participation ratio", left),
        _without("effective rank", left),
    ]
    return Table(f"{id}-directions", "First directions, with and without rows that rule", columns)


def _without(title: str, left: Sequence[Remainder | None]) -> Column:
    """A measure without the rows that rule; that with them is in the other tables."""
    name = title.replace(" ", "_")
    values = [None if one is None else one.dimensions.named()[name].value for one in left]
    return column(f"{title} without them", values)


def _estimate(one: Estimate) -> Cell:
    naive = f"{one.naive:,.4g}"
    if one.value is None:
        return Cell(f"{UNDEFINED} / {naive}")
    between = "" if one.interval is None else f" ({one.interval[0]:,.4g}–{one.interval[1]:,.4g})"
    return Cell(f"{one.value:,.4g}{between} / {naive}", repr(float(one.value)))
