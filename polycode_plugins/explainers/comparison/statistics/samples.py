"""The units of one kind at one site, as the statistics see them: scores, covariates, names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.explainers.comparison.statistics.adjusting import Observed
from polycode_plugins.explainers.comparison.statistics.resampling import Floats


@dataclass(frozen=True)
class Sample:
    """The units of one kind at one site.

    Attributes:
        scores: NaN where undefined [units].
        covariates: NaN where undefined [units, k].
        names: a name at two sites is one unit, and so is one that is there twice. Without names
            each is a unit of its own.
        pairs: for each unit the pair that it is one of; empty where there are none.
    """

    scores: Floats
    covariates: Floats
    names: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.scores)

    def known(self, site: str) -> Sample:
        """Those with a score, with names."""
        names = self.names or tuple(f"{site} {i}" for i in range(len(self)))
        return replace(self, names=names)._of(np.isfinite(self.scores))

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Which units have all covariates [units]."""
        return np.asarray(np.isfinite(self.covariates).all(axis=1))

    def observed(self) -> Observed:
        """Those with all covariates."""
        of = self._of(self.covered)
        return of.names, of.scores, of.covariates

    def _of(self, keep: NDArray[np.bool_]) -> Sample:
        rows = np.flatnonzero(keep)
        names, pairs = (tuple(of[i] for i in rows) if of else () for of in (self.names, self.pairs))
        return Sample(self.scores[rows], self.covariates[rows], names, pairs)

    def _means(self, pairs: Sequence[str]) -> Sample:
        """One unit for each of these pairs: the mean of those that there are, as both signs."""
        rows = [[i for i, pair in enumerate(self.pairs) if pair == key] for key in pairs]
        covariates = [self.covariates[r].mean(axis=0) for r in rows]
        return Sample(
            np.array([self.scores[r].mean() for r in rows]),
            np.array(covariates).reshape(len(rows), self.covariates.shape[1]),
            tuple(pairs),
            tuple(pairs),
        )


def aligned(first: Sample, second: Sample) -> tuple[Sample, Sample]:
    """The pairs of which both kinds have units, in one order."""
    held = set(second.pairs)
    keys = [key for key in dict.fromkeys(first.pairs) if key in held]
    return first._means(keys), second._means(keys)
