"""The difference between two kinds of units, layer by layer: intervals, tests, effect sizes.

Within a layer both kinds went through one pipeline with the same texts and budget; over layers the
difference is paired by layer. Units whose score is undefined are left out and counted. Where each
unit of one kind was made for a unit of the other, the difference is that of the pairs.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from polycode_plugins.explainers.comparison.statistics import adjusting, resampling
from polycode_plugins.explainers.comparison.statistics.agreement import disagreement
from polycode_plugins.explainers.comparison.statistics.resampling import (
    Clusters,
    Floats,
    Interval,
    clusters_of,
    within,
)
from polycode_plugins.explainers.comparison.statistics.samples import Sample, aligned
from polycode_plugins.explainers.scoring.formulas import bounds_of

#: Share of a kind's units with a score that must have all covariates for an adjusted difference.
COVERED = 0.5


@dataclass(frozen=True)
class Contrast:
    """How much higher `first` units score than `second` ones, at a site or over all.

    Attributes:
        site: "" for the mean over sites.
        first, second: kinds of units.
        score: the name of the score.
        n: units of each kind with a score; of pairs, pairs of which both have one.
        undefined: units of each kind without one; of pairs, those whose pair lacks one.
        means: of each kind; None without units.
        difference: mean of first less mean of second; over sites, the mean of theirs.
        interval: 95% symmetric bootstrap-t over units, 2000 draws; a unit that is read at several
            sites is drawn with its scores at all of them. It ends where a difference of such scores
            ends. None for two units of a kind, or fewer, and where it would be all of that.
        p_value: two-sided permutation test of the kinds of units (of pairs: of the kinds in each),
            5000 draws, of the difference in standard errors. Of this one difference: nothing is
            corrected for the number of sites.
        effect: Cohen's d, the difference in pooled standard deviations (within sites); of pairs, in
            standard deviations of their differences.
        dominance: Cliff's delta, P(first > second) - P(first < second), in [-1, 1]; of pairs,
            within them.
        adjusted: difference at equal log kurtosis and sparsity (least squares, sites as levels);
            None where `overlap` is below `adjusting.COMMON`: there are no such units to compare;
            and where fewer than `COVERED` of a kind's units have covariates.
        adjusted_interval: its 95% symmetric bootstrap-t over units.
        overlap: share of a kind's units whose kurtosis and sparsity are among those of the other
            kind, the smaller of the two shares; see `adjusting.overlap`.
        adjusted_n: units of each kind that `adjusted` and `overlap` are about: those with a score
            and all covariates.
        uncovered: the units with a score that lack a covariate, as "site: name".
        pairs: the number of pairs, where kinds are paired: then all of this is about them. None
            where they are not.
        disagreement: p-value of the test that the difference is one at all sites, see
            `agreement.disagreement`; None for fewer than two sites with enough units.
    """

    site: str
    first: str
    second: str
    score: str
    n: tuple[int, int]
    undefined: tuple[int, int]
    means: tuple[float | None, float | None]
    difference: float | None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    effect: float | None = None
    dominance: float | None = None
    adjusted: float | None = None
    adjusted_interval: tuple[float, float] | None = None
    overlap: float | None = None
    adjusted_n: tuple[int, int] = (0, 0)
    uncovered: tuple[str, ...] = ()
    pairs: int | None = None
    disagreement: float | None = None


Pairs = Mapping[str, tuple[Sample, Sample]]


def contrasts(
    pairs: Pairs, first: str, second: str, score: str, *, seed: int = 0
) -> list[Contrast]:
    """One contrast for each site, in the order of `pairs`, and last the one over all sites.

    Where one site alone has units of both kinds it is all sites: the two have the same numbers.
    """
    of = (first, second, score)
    made = [_contrast({site: pair}, site, of, _rng(seed, site)) for site, pair in pairs.items()]
    if len(made) == 1:
        return [*made, replace(made[0], site="")]
    comparable = [c.site for c in made if c.difference is not None]
    whose = comparable[0] if len(comparable) == 1 else ""
    return [*made, _contrast(pairs, "", of, _rng(seed, whose))]


def _rng(seed: int, site: str) -> np.random.Generator:
    """A site's own draws, whatever other sites there are."""
    return np.random.default_rng([seed, zlib.crc32(site.encode())])


def _contrast(
    pairs: Pairs, site: str, of: tuple[str, str, str], rng: np.random.Generator
) -> Contrast:
    known = {name: (a.known(name), b.known(name)) for name, (a, b) in pairs.items()}
    paired = all(a.pairs and b.pairs for a, b in known.values() if len(a) and len(b))
    paired = paired and any(len(a) and len(b) for a, b in known.values())
    known = {name: aligned(*pair) for name, pair in known.items()} if paired else known
    n, total = _sizes(known, paired), _sizes(pairs, paired)
    undefined = (total[0] - n[0], total[1] - n[1])
    both = {name: pair for name, pair in known.items() if len(pair[0]) and len(pair[1])}
    means = tuple(
        float(np.mean([pair[i].scores.mean() for pair in both.values()]))
        if both
        else _mean(known, i)
        for i in (0, 1)
    )
    if not both:
        return Contrast(site, *of, n, undefined, (means[0], means[1]), None)
    values = [(a.scores, b.scores) for a, b in both.values()]
    difference = float(np.mean([a.mean() - b.mean() for a, b in values]))
    enough = all(min(len(set(a.names)), len(set(b.names))) > 1 for a, b in both.values())
    kinds = _clusters(list(both.values()), paired)
    low, high = bounds_of(of[2])
    span = (low - high, high - low)
    adjusted, adjusted_interval, overlap, adjusted_n = _adjusted(both, enough, span, rng)
    return Contrast(
        site,
        *of,
        n,
        undefined,
        (means[0], means[1]),
        difference,
        within(span, resampling.interval(*kinds, rng)) if enough else None,
        resampling.p_value(*kinds, rng) if enough else None,
        _effect(values, difference, paired) if enough else None,
        _dominance(values, paired),
        adjusted,
        adjusted_interval,
        overlap,
        adjusted_n,
        tuple(
            f"{name}: {unit}"
            for name, pair in both.items()
            for sample in pair
            for unit, covered in zip(sample.names, sample.covered, strict=True)
            if not covered
        ),
        n[0] if paired else None,
        disagreement(*kinds, rng) if enough and len(both) > 1 else None,
    )


def _sizes(pairs: Pairs, paired: bool) -> tuple[int, int]:
    """Units of each kind over all sites; of pairs, how many each kind has one of."""
    first, second = (
        sum(len(set(pair[i].pairs)) if paired else len(pair[i]) for pair in pairs.values())
        for i in (0, 1)
    )
    return first, second


def _clusters(
    both: Sequence[tuple[Sample, Sample]], paired: bool
) -> tuple[Clusters, Clusters | None]:
    """The units of both kinds; or the differences of pairs, and None."""
    if paired:
        differences = [(a.names, a.scores - b.scores) for a, b in both]
        return clusters_of(differences, [([], np.empty(0)) for _ in both])[0], None
    return clusters_of(
        [(a.names, a.scores) for a, _ in both], [(b.names, b.scores) for _, b in both]
    )


def _adjusted(
    both: Mapping[str, tuple[Sample, Sample]],
    enough: bool,
    span: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[float | None, Interval, float, tuple[int, int]]:
    """The adjusted difference, its interval, the overlap, and how many units these are about."""
    observed = [(a.observed(), b.observed()) for a, b in both.values()]
    n = (sum(len(a[1]) for a, _ in observed), sum(len(b[1]) for _, b in observed))
    total = (sum(len(a) for a, _ in both.values()), sum(len(b) for _, b in both.values()))
    common = adjusting.overlap(observed)
    covered = all(part >= COVERED * whole for part, whole in zip(n, total, strict=True))
    value, interval = (
        adjusting.adjusted(observed, rng)
        if enough and covered and common >= adjusting.COMMON
        else (None, None)
    )
    return value, within(span, interval), common, n


def _mean(known: Pairs, which: int) -> float | None:
    held = [pair[which].scores for pair in known.values() if len(pair[which])]
    return float(np.mean([s.mean() for s in held])) if held else None


def _effect(
    values: Sequence[tuple[Floats, Floats]], difference: float, paired: bool
) -> float | None:
    groups = [a - b for a, b in values] if paired else [x for pair in values for x in pair]
    squares = sum(((x - x.mean()) ** 2).sum() for x in groups)
    freedom = sum(len(x) - 1 for x in groups)
    return difference / float(np.sqrt(squares / freedom)) if squares > 0 else None


def _dominance(values: Sequence[tuple[Floats, Floats]], paired: bool) -> float:
    wins = [np.sign(a - b if paired else a[:, None] - b).mean() for a, b in values]
    return float(np.mean(wins))
