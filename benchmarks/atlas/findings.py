"""Sentences computed from the tables: what is the same in every network, and what is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.atlas.networks import ATTENTION, NEURONS, RESIDUAL, STAGES, Network

#: A rank correlation with depth from which on a quantity goes one way.
TREND = 0.5
#: A share of blocks from which on something holds "throughout".
MOST = 0.9
NO_WAY = "goes no one way"


@dataclass(frozen=True)
class Finding:
    """A sentence, and whether it says the same of every network."""

    same: bool
    sentence: str


def findings(sites: pd.DataFrame, networks: Sequence[Network]) -> list[Finding]:
    """All of them that the tables bear."""
    main = sites[sites["kind"].isin((RESIDUAL, STAGES))]
    titles = {n.name: n.title for n in networks if (sites["network"] == n.name).any()}
    found = [
        trend(main, titles, "exponent", "the exponent"),
        trend(main, titles, "effective_rank", "the effective rank"),
        trend(main, titles, "redundancy", "the redundancy, as a share of the flat code,"),
        trend(main, titles, "smoothness", "the mean squared step over the variance"),
        trend(main, titles, "nats", "what is kept of the first block's code", skip_first=True),
        against(sites, titles, NEURONS, RESIDUAL, "exponent"),
        against(sites, titles, ATTENTION, RESIDUAL, "exponent"),
        against(sites, titles, NEURONS, RESIDUAL, "redundancy"),
        one_law(main, titles),
        below_one(main, titles),
        ruling(main, titles),
        alike(main, titles),
    ]
    return [finding for finding in found if finding is not None]


def _by_network(rows: pd.DataFrame, titles: dict[str, str]) -> list[tuple[str, pd.DataFrame]]:
    """(title, its rows by depth) of each network that has any."""
    found = [(title, rows[rows["network"] == name]) for name, title in titles.items()]
    return [(title, part.sort_values("depth")) for title, part in found if not part.empty]


def trend(
    rows: pd.DataFrame, titles: dict[str, str], column: str, what: str, *, skip_first: bool = False
) -> Finding | None:
    """Whether a quantity rises or falls with depth, in every network the same way."""
    from scipy.stats import spearmanr

    if column not in rows:
        return None
    found: dict[str, float] = {}
    for title, part in _by_network(rows.dropna(subset=[column]), titles):
        part = part[part["block"] > 0] if skip_first else part
        if len(part) >= 5:
            found[title] = float(spearmanr(part["depth"], part[column]).statistic)
    if not found:
        return None
    words = {title: _way(rho) for title, rho in found.items()}
    same = len(set(words.values())) == 1 and len(found) > 1
    listed = "; ".join(f"{title} {signed(rho)}" for title, rho in found.items())
    if same:
        way = next(iter(words.values()))
        sentence = f"{_capital(what)} {way} with depth in all networks ({listed})."
        return Finding(way != NO_WAY, sentence)
    if len(found) == 1:
        title, way = next(iter(words.items()))
        return Finding(False, f"In {title}, the only network where it was measured, {what} {way} "
                       f"with depth ({listed}).")  # fmt: skip
    said = ", ".join(f"{way} in {_and(t for t in words if words[t] == way)}"
                     for way in dict.fromkeys(words.values()))  # fmt: skip
    return Finding(False, f"{_capital(what)} {said} ({listed}).")


def _way(rho: float) -> str:
    if rho >= TREND:
        return "rises"
    return "falls" if rho <= -TREND else NO_WAY


def against(
    sites: pd.DataFrame, titles: dict[str, str], kind: str, other: str, column: str
) -> Finding | None:
    """Whether one kind of site has more of something than another in the same blocks."""
    shares: dict[str, tuple[int, int, float]] = {}
    for title, part in _by_network(sites, titles):
        two = part[part["kind"].isin((kind, other))].pivot(
            index="block", columns="kind", values=column
        )
        if {kind, other} <= set(two.columns):
            two = two.dropna()
            lower = int((two[kind] < two[other]).sum())
            shares[title] = lower, len(two), float((two[kind] - two[other]).median())
    shares = {title: one for title, one in shares.items() if one[1]}
    if not shares:
        return None
    said = "; ".join(
        f"{title} {lower} of {blocks}, median difference {signed(difference)}"
        for title, (lower, blocks, difference) in shares.items()
    )
    parts = [lower / blocks for lower, blocks, _ in shares.values()]
    what = f"the {column.replace('_', ' ')} of the {kind} lies below that of the {other}"
    if len(parts) > 1 and min(parts) >= MOST:
        return Finding(True, f"In nearly all blocks of all networks {what} ({said}).")
    if len(parts) > 1 and max(parts) <= 1 - MOST:
        above = what.replace("lies below", "lies above")
        return Finding(True, f"In nearly all blocks of all networks {above} (below in: {said}).")
    return Finding(False, f"Blocks in which {what}: {said}.")


def one_law(rows: pd.DataFrame, titles: dict[str, str]) -> Finding:
    """How many spectra are one power law, and over how many decades one holds."""
    said, shares = [], []
    for title, part in _by_network(rows, titles):
        tested = part[part["verdict"] != "not tested"]
        broken = int((tested["verdict"] == "broken").sum())
        shares.append(broken / max(len(tested), 1))
        decades = part["domain_decades"].dropna()
        held = f"one holds over {decades.median():.1f} decades of ranks in the median block" if len(
            decades) else "none holds over a range of ranks"  # fmt: skip
        said.append(f"{title} {broken} of {len(tested)} that could be tested, {held}")
    same = min(shares) >= MOST or max(shares) <= 1 - MOST
    return Finding(same, f"Spectra that are no single power law over the fitted ranks: "
                   f"{'; '.join(said)}.")  # fmt: skip


def below_one(rows: pd.DataFrame, titles: dict[str, str]) -> Finding:
    """On which side of 1 exponents lie, by their intervals."""
    said, sides = [], set()
    for title, part in _by_network(rows.dropna(subset=["exponent_low"]), titles):
        below = int((part["exponent_high"] < 1).sum())
        above = int((part["exponent_low"] > 1).sum())
        low, high = part["exponent"].min(), part["exponent"].max()
        said.append(
            f"{title} {below} below, {above} above, {len(part) - below - above} on both sides "
            f"(from {low:.2f} to {high:.2f})"
        )
        sides.add("below" if below >= MOST * len(part) else
                  "above" if above >= MOST * len(part) else "mixed")  # fmt: skip
    same = len(sides) == 1 and "mixed" not in sides
    return Finding(same, f"Blocks whose 95% interval of the exponent lies below or above 1: "
                   f"{'; '.join(said)}.")  # fmt: skip


def ruling(rows: pd.DataFrame, titles: dict[str, str]) -> Finding:
    """Where a few rows make the first direction."""
    said, shares = [], []
    for title, part in _by_network(rows, titles):
        chosen = part[part["rules"].astype(bool)]
        shares.append(len(chosen) / len(part))
        line = f"{title} {len(chosen)} of {len(part)} blocks"
        if len(chosen):
            ratio = (chosen["participation_without"] / chosen["participation"]).median()
            line += f" (there {chosen['first_share'].median():.0%} of the variance in the median"
            if np.isfinite(ratio):
                line += f"; participation ratio {ratio:.3g} times as large without these rows"
            line += ")"
        said.append(line)
    same = min(shares) >= MOST or max(shares) <= 1 - MOST
    return Finding(same, f"A few rows make the first direction: {'; '.join(said)}.")


def alike(rows: pd.DataFrame, titles: dict[str, str]) -> Finding | None:
    """CKA of neighbouring blocks."""
    said, medians = [], []
    for title, part in _by_network(rows.dropna(subset=["cka_previous"]), titles):
        least = part.loc[part["cka_previous"].idxmin()]
        median = float(part["cka_previous"].median())
        medians.append(median)
        said.append(
            f"{title} {median:.2f} in the median, least {least['cka_previous']:.2f} between "
            f"blocks {int(least['block']) - 1} and {int(least['block'])}"
        )
    if not said:
        return None
    return Finding(min(medians) >= MOST, f"CKA of neighbouring blocks: {'; '.join(said)}.")


def signed(value: float) -> str:
    """With a sign, two decimals, and a true minus."""
    return f"{value:+.2f}".replace("-", "−")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _and(names: Iterable[str]) -> str:
    listed = list(names)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"
