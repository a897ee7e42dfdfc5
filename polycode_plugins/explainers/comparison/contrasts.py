"""The difference between two kinds of units, layer by layer: intervals, tests, effect sizes.

Within a layer both kinds went through one pipeline with the same texts and budget; over layers the
difference is paired by layer. Units whose score is undefined are left out and counted.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from polycode_plugins.explainers.comparison import adjusting
from polycode_plugins.explainers.comparison.resampling import Floats, clusters_of, interval, p_value


@dataclass(frozen=True)
class Contrast:
    """How much higher `first` units score than `second` ones, at a site or over all.

    Attributes:
        site: "" for the mean over sites.
        first, second: kinds of units.
        score: the name of the score.
        n: units of each kind with a score.
        undefined: units of each kind without one.
        means: of each kind; None without units.
        difference: mean of first less mean of second; over sites, the mean of theirs.
        interval: 95% symmetric bootstrap-t over units, 2000 draws; a unit that is read at several
            sites is drawn with its scores at all of them. None for two units of a kind, or fewer.
        p_value: two-sided permutation test of the kinds of units, 5000 draws, of the difference in
            standard errors. Of this one difference: nothing is corrected for the number of sites.
        effect: Cohen's d, the difference in pooled standard deviations (within sites).
        dominance: Cliff's delta, P(first > second) - P(first < second), in [-1, 1].
        adjusted: difference at equal log kurtosis and sparsity (least squares, sites as levels);
            None where `overlap` is below `adjusting.COMMON`: there are no such units to compare.
        adjusted_interval: its 95% symmetric bootstrap-t over units.
        overlap: share of a kind's units whose kurtosis and sparsity are among those of the other
            kind, the smaller of the two shares; see `adjusting.overlap`.
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


@dataclass(frozen=True)
class Sample:
    """The units of one kind at one site.

    Attributes:
        scores: NaN where undefined [units].
        covariates: NaN where undefined [units, k].
        names: a name at two sites is one unit, and so is one that is there twice. Without names
            each is a unit of its own.
    """

    scores: Floats
    covariates: Floats
    names: tuple[str, ...] = ()

    def known(self, site: str) -> Sample:
        """Those with a score, with names."""
        keep = np.isfinite(self.scores)
        names = self.names or tuple(f"{site} {i}" for i in range(len(self.scores)))
        kept = tuple(names[i] for i in np.flatnonzero(keep))
        return Sample(self.scores[keep], self.covariates[keep], kept)

    def observed(self) -> adjusting.Observed:
        """Those with all covariates."""
        keep = np.isfinite(self.covariates).all(axis=1)
        names = [self.names[i] for i in np.flatnonzero(keep)]
        return names, self.scores[keep], self.covariates[keep]


Pairs = Mapping[str, tuple[Sample, Sample]]


def contrasts(
    pairs: Pairs, first: str, second: str, score: str, *, seed: int = 0
) -> list[Contrast]:
    """One contrast for each site, in the order of `pairs`, and last the one over all sites."""
    made = [
        _contrast({site: pair}, site, first, second, score, _rng(seed, site))
        for site, pair in pairs.items()
    ]
    return [*made, _contrast(pairs, "", first, second, score, _rng(seed, ""))]


def _rng(seed: int, site: str) -> np.random.Generator:
    """A site's own draws, whatever other sites there are."""
    return np.random.default_rng([seed, zlib.crc32(site.encode())])


def _contrast(
    pairs: Pairs, site: str, first: str, second: str, score: str, rng: np.random.Generator
) -> Contrast:
    known = [(a.known(name), b.known(name)) for name, (a, b) in pairs.items()]
    n = (sum(len(a.scores) for a, _ in known), sum(len(b.scores) for _, b in known))
    total = (
        sum(len(a.scores) for a, _ in pairs.values()),
        sum(len(b.scores) for _, b in pairs.values()),
    )
    undefined = (total[0] - n[0], total[1] - n[1])
    both = [(a, b) for a, b in known if len(a.scores) and len(b.scores)]
    means = tuple(
        float(np.mean([pair[i].scores.mean() for pair in both])) if both else _mean(known, i)
        for i in (0, 1)
    )
    if not both:
        return Contrast(site, first, second, score, n, undefined, (means[0], means[1]), None)
    values = [(a.scores, b.scores) for a, b in both]
    difference = float(np.mean([a.mean() - b.mean() for a, b in values]))
    enough = all(min(len(set(a.names)), len(set(b.names))) > 1 for a, b in both)
    clusters = clusters_of(
        [(a.names, a.scores) for a, _ in both], [(b.names, b.scores) for _, b in both]
    )
    observed = [(a.observed(), b.observed()) for a, b in both]
    common = adjusting.overlap(observed)
    adjusted, adjusted_interval = (
        adjusting.adjusted(observed, rng) if enough and common >= adjusting.COMMON else (None, None)
    )
    return Contrast(
        site,
        first,
        second,
        score,
        n,
        undefined,
        (means[0], means[1]),
        difference,
        interval(*clusters, rng) if enough else None,
        p_value(*clusters, rng) if enough else None,
        _effect(values, difference) if enough else None,
        float(np.mean([np.sign(a[:, None] - b).mean() for a, b in values])),
        adjusted,
        adjusted_interval,
        common,
    )


def _mean(known: Sequence[tuple[Sample, Sample]], which: int) -> float | None:
    held = [pair[which].scores for pair in known if len(pair[which].scores)]
    return float(np.mean([s.mean() for s in held])) if held else None


def _effect(values: Sequence[tuple[Floats, Floats]], difference: float) -> float | None:
    squares = sum(((x - x.mean()) ** 2).sum() for pair in values for x in pair)
    freedom = sum(len(x) - 1 for pair in values for x in pair)
    return difference / float(np.sqrt(squares / freedom)) if squares > 0 else None
