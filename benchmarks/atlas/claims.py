"""What others claim of trained networks, as data: a statistic, a criterion, and how it is measured.

Blocks of one network are measured on the same tokens, so their errors go together. Where a mean
over blocks is judged, its interval is the mean of the blocks' intervals, which holds however
strongly their errors are correlated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.atlas.networks import NEURONS, RESIDUAL, Network
from polycode_plugins.experiments.claims import (
    CannotJudge,
    Claim,
    Criterion,
    Effect,
    Numbers,
    at_least,
    at_most,
    mean_effect,
    share_effect,
)

Floats = NDArray[np.float64]
DRAWS = 2000


def claims(networks: Iterable[Network]) -> list[Claim]:
    """All claims that bear on these networks, in the order of the page."""
    found: list[Claim] = []
    readers = [n for n in networks if n.reads == "windows"]
    for network in readers:
        found += _of_depth(network)
    found += _of_massive_activations()
    for network in readers:
        found += _of_bases(network)
    for network in readers[:1]:
        found += _of_shuffling(network)
    return found + _of_phases() + _of_widths()


# -- exponents and depth ---------------------------------------------------------------------------


def _of_depth(network: Network) -> list[Claim]:
    title = network.title
    return [
        Claim(
            f"The exponent is near 1 in the middle blocks ({title})",
            "Marshall & Kirchner 2024, figure 6 (dashed line); Agrawal et al. 2022",
            "exponent of the residual stream, mean over the middle third of the blocks",
            Criterion(0.9, 1.1),
            partial(middle_exponent, network=network.name),
        ),
        Claim(
            f"The exponent depends on depth ({title})",
            "Marshall & Kirchner 2024, summary (figure 6)",
            "share of the variance of exponents between blocks that is none of their errors "
            "(I squared, Higgins & Thompson 2002)",
            at_least(0.5),
            partial(depth_heterogeneity, network=network.name),
        ),
        Claim(
            f"It goes one way with depth ({title})",
            "a reading of Marshall & Kirchner 2024, figure 3c",
            "size of the rank correlation of exponent and block",
            at_least(0.5),
            partial(depth_trend, network=network.name),
        ),
    ]


def residual(numbers: Numbers, network: str) -> pd.DataFrame:
    """The residual stream of a network, blocks with an interval of the exponent.

    Raises:
        CannotJudge: where most blocks have none, or the network is not there.
    """
    sites = table(numbers, "sites")
    rows = sites[(sites["network"] == network) & (sites["kind"] == RESIDUAL)]
    known = rows.dropna(subset=["exponent", "exponent_low", "exponent_high"])
    if rows.empty:
        raise CannotJudge("the network was not measured")
    if 2 * len(known) < len(rows) or len(known) < 3:
        raise CannotJudge("most blocks have no interval of the exponent")
    return known.sort_values("block")


def table(numbers: Numbers, name: str) -> pd.DataFrame:
    """A table that a claim needs.

    Raises:
        CannotJudge: where it was not made.
    """
    found = numbers.get(name)
    if found is None or found.empty:
        raise CannotJudge("this was not measured")
    return found


def middle_exponent(numbers: Numbers, network: str) -> Effect:
    """Mean exponent of the middle third."""
    rows = residual(numbers, network)
    middle = rows[(rows["depth"] >= 1 / 3) & (rows["depth"] <= 2 / 3)]
    if middle.empty:
        raise CannotJudge("no block of the middle third has an interval")
    ends = (float(middle[f"exponent{end}"].mean()) for end in ("", "_low", "_high"))
    return Effect(*ends)


def depth_heterogeneity(numbers: Numbers, network: str) -> Effect:
    """I squared of the exponents, with the interval of Higgins & Thompson 2002, appendix A2."""
    rows = residual(numbers, network)
    values, errors = rows["exponent"].to_numpy(), standard_errors(rows, "exponent")
    weights = 1 / errors**2
    mean = float((weights * values).sum() / weights.sum())
    q, freedom = float((weights * (values - mean) ** 2).sum()), len(values) - 1

    def share(log_h: float) -> float:
        return max(0.0, 1 - math.exp(-2 * log_h))

    log_h = 0.5 * math.log(max(q, 1e-12) / freedom)
    if q > freedom + 1:
        error = 0.5 * (math.log(q) - math.log(freedom))
        error /= math.sqrt(2 * q) - math.sqrt(2 * freedom - 1)
    else:
        if freedom < 2:
            raise CannotJudge("that needs several blocks")
        error = math.sqrt((1 - 1 / (3 * (freedom - 1) ** 2)) / (2 * (freedom - 1)))
    return Effect(share(log_h), share(log_h - 1.96 * error), share(log_h + 1.96 * error))


def depth_trend(numbers: Numbers, network: str) -> Effect:
    """|rank correlation| of exponent and block; the interval draws exponents within theirs."""
    from scipy.stats import spearmanr

    rows = residual(numbers, network)
    if len(rows) < 5:
        raise CannotJudge("a rank correlation needs 5 blocks")
    blocks = rows["block"].to_numpy()
    values, errors = rows["exponent"].to_numpy(), standard_errors(rows, "exponent")
    if np.ptp(values) == 0:
        raise CannotJudge("it is the same at every block")
    rng = np.random.default_rng(0)
    drawn = values + errors * rng.standard_normal((DRAWS, len(values)))
    sizes = [abs(float(spearmanr(blocks, one).statistic)) for one in drawn]
    low, high = np.quantile(sizes, [0.025, 0.975])
    return Effect(abs(float(spearmanr(blocks, values).statistic)), float(low), float(high))


def standard_errors(rows: pd.DataFrame, column: str) -> Floats:
    """Half the width of a 95% interval over 1.96."""
    widths = (rows[f"{column}_high"] - rows[f"{column}_low"]).to_numpy(dtype=np.float64)
    return np.maximum(widths, 1e-9) / 3.92


# -- massive activations ---------------------------------------------------------------------------


def _of_massive_activations() -> list[Claim]:
    return [
        Claim(
            "Massive activations decide the participation ratio",
            "Sun et al. 2024 (massive activations)",
            "share of the sites with rows that rule at which it at least doubles without them",
            at_least(0.75),
            ruled_doubles,
        ),
        Claim(
            "They are a handful of tokens",
            "Sun et al. 2024",
            "share of these sites at which a thousandth of the rows, or less, makes half of the "
            "first direction",
            at_least(0.75),
            ruled_by_few,
        ),
    ]


def ruled(numbers: Numbers) -> pd.DataFrame:
    """The sites where a few rows make the first direction."""
    sites = table(numbers, "sites")
    rows = sites[sites["rules"].astype(bool)]
    if rows.empty:
        raise CannotJudge("at no site do a few rows make the first direction")
    return rows


def ruled_doubles(numbers: Numbers) -> Effect:
    """Where rows could be taken out."""
    rows = ruled(numbers).dropna(subset=["participation_without"])
    if rows.empty:
        raise CannotJudge("the rows could not be taken out anywhere")
    doubled = rows["participation_without"] >= 2 * rows["participation"]
    return share_effect(int(doubled.sum()), len(rows))


def ruled_by_few(numbers: Numbers) -> Effect:
    rows = ruled(numbers)
    return share_effect(int((rows["half_share"] <= 0.001).sum()), len(rows))


# -- the basis of neurons --------------------------------------------------------------------------


def _of_bases(network: Network) -> list[Claim]:
    title, source = network.title, "Marshall & Kirchner 2024 (neurons and random projections)"
    return [
        Claim(
            f"Neurons are no sparser a basis than a random rotation of it, by kurtosis ({title})",
            source,
            "log2 of median kurtosis of neurons / of rotated ones, mean over blocks, by group of "
            "documents",
            Criterion(-0.5, 0.5),
            partial(basis_kurtosis, network=network.name),
        ),
        Claim(
            f"The same by sparseness ({title})",
            source,
            "median of 1 - (mean |x|)^2 / mean x^2 (Treves & Rolls 1991), neurons less rotated",
            Criterion(-0.05, 0.05),
            partial(basis_sparseness, network=network.name),
        ),
    ]


def _bases(numbers: Numbers, network: str) -> pd.DataFrame:
    bases = table(numbers, "bases")
    rows = bases[bases["network"] == network]
    if rows.empty:
        raise CannotJudge(f"the {NEURONS} of this network were not measured")
    return rows


def basis_kurtosis(numbers: Numbers, network: str) -> Effect:
    rows = _bases(numbers, network)
    ratio = np.log2(rows["kurtosis"] / rows["kurtosis_rotated"])
    return mean_effect(ratio.groupby(rows["group"]).mean())


def basis_sparseness(numbers: Numbers, network: str) -> Effect:
    rows = _bases(numbers, network)
    difference = rows["sparseness"] - rows["sparseness_rotated"]
    return mean_effect(difference.groupby(rows["group"]).mean())


# -- shuffled weights ------------------------------------------------------------------------------


def _of_shuffling(network: Network) -> list[Claim]:
    source = "Marshall & Kirchner 2024; Heap et al. 2025 (random transformers)"
    return [
        Claim(
            f"The {what} is the trained network's: it differs once the entries of every weight "
            f"matrix are in random order ({network.title})",
            source,
            f"share of blocks whose 95% intervals of the {what} lie apart",
            at_least(0.75),
            partial(apart, column=column),
        )
        for what, column in (("exponent", "exponent"), ("effective rank", "effective_rank"))
    ]


def apart(numbers: Numbers, column: str) -> Effect:
    """Share of blocks with disjoint intervals; of equal populations about one in 200 would be."""
    names = [
        f"{column}_{name}_{end}" for name in ("trained", "shuffled") for end in ("low", "high")
    ]
    rows = table(numbers, "shuffled").dropna(subset=names)
    if rows.empty:
        raise CannotJudge("no block has an interval in both")
    low, high, other_low, other_high = (rows[name] for name in names)
    return share_effect(int(((high < other_low) | (other_high < low)).sum()), len(rows))


# -- training --------------------------------------------------------------------------------------


def _of_phases() -> list[Claim]:
    source, of = "Li et al. 2025 (phases of pretraining)", "a small GPT-2 trained here"
    what = "effective rank of the last block, mean over groups of held-out texts"
    phases: list[tuple[str, str, Criterion, Callable[[Numbers], Effect]]] = [
        (
            f"Training begins with a collapse of the representation ({of})",
            f"log2 of the lowest in the first half of the checkpoints / before training: {what}",
            at_most(-0.1),
            partial(phase, begin=0, end=1),
        ),
        (
            f"Then the representation expands ({of})",
            f"log2 of the highest after that / the lowest: {what}",
            at_least(0.1),
            partial(phase, begin=1, end=2),
        ),
        (
            f"Then it is compressed ({of})",
            f"log2 of the last / the highest: {what}",
            at_most(-0.1),
            partial(phase, begin=2, end=3),
        ),
        (
            f"The exponent falls where the effective rank grows ({of})",
            "rank correlation of the two over checkpoints, mean over groups of texts",
            at_most(-0.5),
            exponent_against_rank,
        ),
    ]
    return [
        Claim(text, source, statistic, criterion, measure)
        for text, statistic, criterion, measure in phases
    ]


def _by_group(numbers: Numbers, column: str) -> pd.DataFrame:
    found = table(numbers, "checkpoints").pivot(index="group", columns="step", values=column)
    if found.isna().any(axis=None):
        raise CannotJudge("it is not known at every checkpoint")
    if found.shape[1] < 4:
        raise CannotJudge("phases need 4 checkpoints")
    return found


def phase(numbers: Numbers, begin: int, end: int) -> Effect:
    """log2 of the effective rank at turn `end` over that at turn `begin`, by group.

    Turns: 0 the first checkpoint, 1 the lowest of the first half, 2 the highest from there on, 3
    the last, by the mean over groups.
    """
    logs = np.log2(_by_group(numbers, "effective_rank"))
    mean = logs.mean().to_numpy()
    low = int(mean[: len(mean) // 2].argmin())
    turns = (0, low, low + int(mean[low:].argmax()), len(mean) - 1)
    return mean_effect(logs.iloc[:, turns[end]] - logs.iloc[:, turns[begin]])


def exponent_against_rank(numbers: Numbers) -> Effect:
    from scipy.stats import spearmanr

    ranks, exponents = (_by_group(numbers, name) for name in ("effective_rank", "exponent"))
    found = [
        float(spearmanr(ranks.loc[group], exponents.loc[group]).statistic) for group in ranks.index
    ]
    return mean_effect(found)


# -- widths ----------------------------------------------------------------------------------------


def _of_widths() -> list[Claim]:
    source, of = "Jha & Reagen 2025 (spectral scaling laws)", "small GPT-2s trained here"
    return [
        Claim(
            f"The soft rank of MLP neurons grows as a power of their number ({of})",
            source,
            "R squared of log soft rank (exp of the spectral entropy) against log width, by "
            "network",
            at_least(0.95),
            partial(width_slope, column="soft", fit=True),
        ),
        Claim(
            f"The hard rank grows more slowly than the width ({of})",
            source,
            "slope of log hard rank (participation ratio) against log width, by network",
            at_most(0.9),
            partial(width_slope, column="hard"),
        ),
        Claim(
            f"The soft rank grows faster than the hard rank ({of})",
            source,
            "slope of log soft rank less that of log hard rank, by network",
            at_least(0.1),
            lambda numbers: mean_effect(_slopes(numbers, "soft") - _slopes(numbers, "hard")),
        ),
    ]


def _logs(numbers: Numbers, column: str) -> pd.DataFrame:
    """[networks, widths]: mean over blocks of log2 of a rank."""
    rows = table(numbers, "widths").dropna(subset=[column])
    logs = np.log2(rows[column]).groupby([rows["network"], rows["inner"]]).mean()
    found = logs.unstack()
    if found.shape[1] < 3 or found.isna().any(axis=None):
        raise CannotJudge("that needs 3 widths of every network")
    return found


def _slopes(numbers: Numbers, column: str) -> Floats:
    logs = _logs(numbers, column)
    return np.polyfit(np.log2(logs.columns.to_numpy(float)), logs.to_numpy().T, 1)[0]


def width_slope(numbers: Numbers, column: str, fit: bool = False) -> Effect:
    """Slope by network, or how well the straight line fits."""
    if not fit:
        return mean_effect(_slopes(numbers, column))
    logs = _logs(numbers, column)
    x = np.log2(logs.columns.to_numpy(float))
    found = mean_effect([float(np.corrcoef(x, y)[0, 1]) ** 2 for y in logs.to_numpy()])
    assert found.low is not None
    assert found.high is not None
    return Effect(found.value, max(found.low, 0.0), min(found.high, 1.0))
