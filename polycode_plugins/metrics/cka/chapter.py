"""The section of the `cka` metric: the matrix of all pairs, neighbours by depth, a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from polycode_plugins.activations import Site
from polycode_plugins.metrics.chapter import View, meanings, quantity
from polycode_plugins.metrics.cka.alignment import Floats
from polycode_plugins.pages.charts import Axis
from polycode_plugins.pages.depth_charts import by_depth
from polycode_plugins.pages.matrices import Matrix
from polycode_plugins.pages.pages import Part, Prose
from polycode_plugins.pages.tables import Table, column, names, scalar_columns

if TYPE_CHECKING:
    from polycode_plugins.metrics.cka.result import CKAResult


def cka_parts(view: View) -> list[Part]:
    """The parts of the section, in order."""
    results: Sequence[CKAResult] = view.results
    kind = type(results[0])
    sites = [site.name for site in view.sites]
    parts: list[Part] = [
        Prose(
            [
                f"{kind.reading} It is estimated without bias from {results[0].n_samples:,} "
                "samples of each site, the same ones at all: no pair of samples of one document "
                "enters, so that neither few samples nor resembling tokens make codes look alike. "
                "Intervals are 95%, for documents drawn like these.",
                "A high value says that the directions of large variance hold the same thing in "
                "both. It does not say that small directions do, nor that what one site can tell "
                "the other can tell too.",
            ]
        ),
        matrix(
            f"{view.id}-matrix",
            "All pairs of sites",
            "Each cell is the CKA of the site of its row and that of its column, numbered by "
            "depth. Blocks along the diagonal are stretches of layers with like codes. Point at a "
            "cell to see its number.",
            sites,
            sites,
            np.stack([r.cka for r in results]),
            np.stack([r.low for r in results]),
            np.stack([r.high for r in results]),
        ),
    ]
    if len(sites) > 1:
        parts.append(
            by_depth(
                f"{view.id}-depth",
                "CKA with the site before",
                "How alike each site is to the one before it: where the code changes, the line "
                "dips. The bars are the intervals.",
                Axis("CKA with the site before"),
                view.sites,
                [quantity("CKA", [r.to_previous for r in results], [r.interval for r in results])],
            )
        )
    columns = [
        names("site", sites),
        *scalar_columns([r.scalars() for r in results], kind.units, kind.names, meanings(kind)),
        column(
            "naive CKA with the site before",
            [float(r.naive[r.at - 1]) if r.at else None for r in results],
            help="of the samples as they are: too high where samples are few for the width",
        ),
    ]
    parts.append(Table(f"{view.id}-table", "All sites", columns))
    return parts


def matrix(
    id: str,
    title: str,
    caption: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Floats,
    low: Floats,
    high: Floats,
) -> Matrix:
    """A picture of CKA [rows, columns] with intervals."""

    def said(i: int, j: int) -> str:
        text = f"{values[i, j]:.3f}"
        return text if np.isnan(low[i, j]) else f"{text} ({low[i, j]:.3f} to {high[i, j]:.3f})"

    return Matrix(
        id,
        title,
        caption,
        rows,
        columns,
        [[None if np.isnan(v) else float(v) for v in line] for line in values],
        [[said(i, j) for j in range(len(columns))] for i in range(len(rows))],
    )


def findings(sites: Sequence[Site], results: Sequence[CKAResult]) -> list[str]:
    """Where the code changes most from one site to the next, and how alike the ends are."""
    known = [(r.to_previous, i) for i, r in enumerate(results) if r.to_previous is not None]
    if not known:
        return []
    value, at = min(known)
    span = _interval(results[at].interval)
    if len(results) == 2:
        return [f"The CKA of {sites[0].name} and {sites[1].name} is {value:.2f}{span}."]
    said = [
        f"From site to site the code changes most at {sites[at].name}, whose CKA with "
        f"{sites[at - 1].name} is {value:.2f}{span}."
    ]
    ends = results[-1].to_first
    if ends is not None:
        low, high = results[-1].low[0], results[-1].high[0]
        span = _interval(None if np.isnan(low) else (float(low), float(high)))
        said.append(f"That of the first site and the last is {ends:.2f}{span}.")
    return said


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f" ({ends[0]:.2f} to {ends[1]:.2f})"
