"""How a quantity goes with depth, over several networks or parts of the data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.experiments.claims import CannotJudge, Effect, mean_effect

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def depth_share(table: pd.DataFrame, column: str, unit: str = "network") -> Effect:
    """The share of the variance of `column` that depth accounts for; 0 where there is no effect.

    The intraclass correlation of a one-way layout (depths are groups, units repeat the measurement)
    with its exact interval from the F distribution. Units' own levels count as noise, so it is 1
    only where every unit has the same profile over depth; below 0 is chance.

    Raises:
        CannotJudge: with a single unit or depth, or a constant.
    """
    from scipy.stats import f

    values = table.pivot(index="depth", columns=unit, values=column).to_numpy()
    groups, n = values.shape
    if groups < 2 or n < 2:
        raise CannotJudge("that needs several depths, each measured on several units")
    if not np.isfinite(values).all():
        raise CannotJudge("it is not defined at every depth")
    between = n * float(values.mean(1).var(ddof=1))
    within = float(values.var(1, ddof=1).mean())
    if between == 0 and within == 0:
        raise CannotJudge("it is the same everywhere")
    if within == 0:
        return Effect(1.0, 1.0, 1.0)

    def share(ratio: float) -> float:
        return (ratio - 1) / (ratio + n - 1)

    ratio = between / within
    freedom = groups - 1, groups * (n - 1)
    low, high = ratio / f.ppf(0.975, *freedom), ratio / f.ppf(0.025, *freedom)
    return Effect(share(ratio), share(low), share(high))


def mean_rank_correlation(
    table: pd.DataFrame, x: str, y: str, unit: str = "network", fewest: int = 5
) -> Effect:
    """Spearman's correlation of two columns over the depths of each unit; their mean.

    Raises:
        CannotJudge: with fewer than `fewest` depths, two units, or a constant.
    """
    from scipy.stats import spearmanr

    found = []
    for _, rows in table.groupby(unit):
        a, b = rows[x].to_numpy(), rows[y].to_numpy()
        if len(rows) < fewest:
            raise CannotJudge(f"a rank correlation needs {fewest} depths")
        if np.ptp(a) == 0 or np.ptp(b) == 0:
            raise CannotJudge("it is the same at every depth")
        found.append(float(spearmanr(a, b).statistic))
    return mean_effect(found)


def later_less_earlier(table: pd.DataFrame, column: str, unit: str = "network") -> Effect:
    """Mean of `column` over the deeper half of the depths less that over the others, by unit."""
    later = _later(table)
    means = table.groupby([unit, later])[column].mean().unstack()
    return mean_effect(means[True] - means[False])


def later_mean(table: pd.DataFrame, column: str, unit: str = "network") -> Effect:
    """Mean of `column` over the deeper half of the depths, by unit; undefined rows left out."""
    rows = table[_later(table)]
    if rows[column].isna().mean() > 0.5:
        raise CannotJudge("it is undefined at most depths")
    return mean_effect(rows.groupby(unit)[column].mean().dropna())


def _later(table: pd.DataFrame) -> pd.Series[bool]:
    depths = np.sort(table["depth"].unique())
    if len(depths) < 2:
        raise CannotJudge("there is a single depth")
    deeper: pd.Series[bool] = table["depth"] >= depths[(len(depths) + 1) // 2]
    return deeper


def shown_ranks(n: int, count: int = 60) -> NDArray[np.int64]:
    """Ranks from 1 to `n`, evenly spread on a log scale: what a plot of a spectrum needs."""
    if n <= count:
        return np.arange(1, n + 1)
    return np.unique(np.round(np.geomspace(1, n, count)).astype(np.int64))


def spectrum_rows(
    eigenvalues: NDArray[np.float64], law: Any, columns: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of a table that a spectrum can be drawn from.

    `law` is the power law whose straight line is in `line`, NaN outside of its ranks. Both are in
    units of the total variance.
    """
    total = float(eigenvalues.sum())
    first, last = law.ranks
    rows = []
    for rank in shown_ranks(len(eigenvalues)).tolist():
        value = float(eigenvalues[rank - 1]) / total
        line = float(np.exp(law.intercept)) * rank**law.line_slope / total
        inside = first <= rank <= last
        rows.append(
            {**columns, "rank": rank, "eigenvalue": value, "line": line if inside else np.nan}
        )
    return rows


def places(table: pd.DataFrame) -> dict[int, float]:
    """Depth to its place from 0 to 1, for colours."""
    depths: Sequence[int] = sorted(table["depth"].unique())
    return {depth: i / max(len(depths) - 1, 1) for i, depth in enumerate(depths)}


def layer_numbers(table: pd.DataFrame) -> dict[int, int]:
    """Depth to the number of its layer, from 1.

    That is the first number in the name of the site (blocks.4 is the fifth layer), so that a choice
    of layers keeps its numbers; the place among the sites where names do not number them apart.
    """
    sites = table.drop_duplicates("depth").set_index("depth")["site"].sort_index()
    found = [re.search(r"\d+", str(site)) for site in sites]
    numbers = [int(one.group()) for one in found if one is not None]
    apart = len(set(numbers)) == len(sites)
    shown = [n + 1 for n in numbers] if apart else [int(depth) + 1 for depth in sites.index]
    return dict(zip((int(depth) for depth in sites.index), shown, strict=True))


def plain_log(ax: Axes) -> None:
    """Ticks of a log axis as plain numbers, also where it spans less than a decade."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = ax.get_ylim()
    wide = np.log10(high / low) > 1.5
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
