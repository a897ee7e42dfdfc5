"""What a power law says of the static action, beside the action of the spectrum itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from polycode_plugins import theory
from polycode_plugins.activations import Site
from polycode_plugins.metrics.action.power_law import PowerLawAction, power_law_action
from polycode_plugins.metrics.spectrum.result import SpectrumResult
from polycode_plugins.pages.charts import Axis, Chart, Series
from polycode_plugins.pages.tables import Table, column, names

_WIDTHS = 4  # curves that can be told apart
_POINTS = 41


def action_table(id: str, sites: Sequence[Site], results: Sequence[SpectrumResult]) -> Table:
    """Static action of every site, in units of its first eigenvalue, beside what theory gives."""
    found = [power_law_action(result) for result in results]
    columns = [
        names("site", [s.name for s in sites]),
        column("exponent", [a.exponent for a in found], digits=3, help="of the fitted power law"),
        column(
            "measured",
            [_measured(a) for a in found],
            help="from the eigenvalues: 3 / (2 width) times their sum",
        ),
        column(
            "power law",
            [a.corrected / a.scale for a in found],
            help="of a power law with this exponent and width: 3 / (2 width) times the sum of "
            "1 / rank^exponent; where the spectrum follows no one power law, that of the line that "
            "was fitted all the same",
        ),
        column(
            "as published",
            [None if a.as_published is None else a.as_published / a.scale for a in found],
            help="zeta(exponent) / 2, which leaves out 3 / width and takes infinitely many units; "
            "it has no value for an exponent of at most 1",
        ),
    ]
    return Table(f"{id}-actions", "Static action / first eigenvalue", columns)


def action_chart(id: str, sites: Sequence[Site], results: Sequence[SpectrumResult]) -> Chart | None:
    """Static action against exponent (Marshall & Kirchner 2024, figure 4, supplement 2.5).

    Of the sites whose spectra follow one power law: others have no exponent to be drawn at. None
    where there is no such site.
    """
    found = {
        i: power_law_action(result)
        for i, result in enumerate(results)
        if not result.power_law.broken
    }
    if not found:
        return None
    last = max(len(sites) - 1, 1)
    top = max(1.5, *(a.exponent for a in found.values())) * 1.05
    series = []
    for width in sorted({a.width for a in found.values()})[:_WIDTHS]:
        at = np.linspace(0, top, _POINTS).tolist()
        curve = [theory.power_law_action(width, exponent, 3) for exponent in at]
        series.append(Series(f"power law, width {width:,}", at, curve, "ink", "dash", legend=False))
    for i, action in found.items():
        site = sites[i]
        value = _measured(action)
        label = [site.name, f"exponent {action.exponent:.3f}", f"measured {value:.3g}"]
        label.append(f"power law {action.corrected / action.scale:.3g}")
        colour = f"scale:{i / last:.3f}"
        series.append(
            Series(
                site.name,
                [action.exponent],
                [value],
                colour,
                symbol="circle",
                hover=[label],
                legend=False,
            )
        )
    return Chart(
        f"{id}-action",
        "Static action against exponent",
        "How strongly random projections of the code to three dimensions vary, as a share of the "
        "first eigenvalue: a point on its dashed line has the action that a power law with its "
        "exponent has, a point off it has more or less, by as much as its spectrum departs from "
        f"that law. Of several lines the lower belong to wider sites.{_left_out(found, sites)}",
        Axis("exponent (no unit)"),
        Axis("static action / first eigenvalue", log=True),
        series,
        scale=("first site", "last site") if len(sites) > 1 else None,
        notes=[("ink", "dash", "power law of this width")],
    )


def _left_out(found: Mapping[int, PowerLawAction], sites: Sequence[Site]) -> str:
    fewer = len(sites) - len(found)
    if not fewer:
        return ""
    which = "1 site that follows" if fewer == 1 else f"{fewer} sites that follow"
    return f" The table alone has {which} no one power law."


def _measured(action: PowerLawAction) -> float:
    assert action.measured is not None
    return action.measured / action.scale
