"""How the scores of a layer's units go with what metrics say of the layer, see `Result.related`.

Where the units' own site was not analysed, the layer is known by its number: units of
`blocks.3.mlp.hook_post` go with the one analysed site that has the number 3 in its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polycode_plugins.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from polycode_plugins.explainers.comparison.outcome import Comparison
    from polycode_plugins.runs.analysis import Analysis

FEWEST = 4  # sites of which a rank correlation says anything


def relation(comparison: Comparison, analysis: Analysis, score: str) -> pd.DataFrame:
    """See `Comparison.relation`."""
    import pandas as pd

    sites = _matched(comparison.sites, list(analysis.results))
    if not sites:
        raise DataError(
            f"the analysis has none of the sites {', '.join(comparison.sites[:3])}; analyse the "
            "sites that were compared"
        )
    rows = []
    for label in analysis.metrics:
        scalars = {site: analysis[of, label].scalars() for site, of in sites.items()}
        results = [analysis[of, label] for of in sites.values()]
        for field in dict.fromkeys(f for result in results for f in result.related):
            known = {s: v.get(field) for s, v in scalars.items()}
            known = {s: float(v) for s, v in known.items() if isinstance(v, float | int)}
            if known:
                rows += _rows(comparison, f"{label}.{field}", known, score)
    if not rows:
        raise DataError(
            f"the metrics of the analysis ({', '.join(analysis.metrics)}) have no quantity to set "
            "beside scores; analyse the sites with metrics=['spectrum', 'action']"
        )
    return pd.DataFrame(rows)


def _matched(sites: Sequence[str], analysed: Sequence[str]) -> dict[str, str]:
    """For each site that was compared the one whose analysis is of its layer, where there is one.

    The sites themselves, or else (never some so and some so) those of the same number.
    """
    same = {site: site for site in sites if site in analysed}
    if same:
        return same
    found = {}
    for site in sites:
        numbers = re.findall(r"\d+", site)
        twins = [a for a in analysed if re.findall(r"\d+", a) == numbers]
        if numbers and len(twins) == 1:
            found[site] = twins[0]
    return found


def _rows(
    comparison: Comparison, quantity: str, known: dict[str, float], score: str
) -> list[dict[str, Any]]:
    rows = []
    for weights in comparison.weights:
        for kind in comparison.kinds:
            pairs = []
            for site, value in known.items():
                found = [
                    u.score(score)
                    for u in comparison
                    if (u.site, u.kind, u.weights) == (site, kind, weights)
                ]
                scores = [s for s in found if s is not None]
                if scores and math.isfinite(value):
                    pairs.append((value, float(np.mean(scores))))
            rows.append(
                {
                    "quantity": quantity,
                    "kind": kind,
                    "weights": weights,
                    "rho": _rho(pairs),
                    "sites": len(pairs),
                    "left_out": len(known) - len(pairs),
                }
            )
    return rows


def _rho(pairs: list[tuple[float, float]]) -> float | None:
    from scipy.stats import spearmanr

    if len(pairs) < FEWEST:
        return None
    x, y = np.array(pairs).T
    if (x == x[0]).all() or (y == y[0]).all():
        return None
    return float(spearmanr(x, y).statistic)
