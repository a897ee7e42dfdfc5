"""Where the search for the points of a sample spectrum begins: at those of a similar population."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.metrics.spectrum.law.levels import Array, Levels
from polycode_plugins.metrics.spectrum.rows.correlated_spectrum import Profile, solution_near

Complex = NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class Start:
    """The points that were found for one population.

    ranks: [nodes]. levels, population: [levels] which eigenvalues are taken as one, and what they
    are. points: [nodes] w. response: [nodes, levels], as in `SampleSpectrum`. x, e, form: of
    correlated rows (`rows.correlated_spectrum`); None for independent ones.
    """

    ranks: NDArray[np.int64]
    levels: Levels
    population: Array
    points: Complex
    response: Array
    x: Array | None = None
    e: Complex | None = None
    form: Profile | None = None

    def moved(self, population: Array) -> Start:
        """For another population [width], to first order in the logarithms of its eigenvalues."""
        held = self.levels.mean(population)
        factor = np.exp(self.response @ np.log(held / self.population))
        new = replace(self, population=held, points=self.points * factor)
        if self.x is None or self.e is None:
            return new
        return replace(new, x=self.x * factor, e=self.e / factor[:, None])

    def independent(self, ranks: NDArray[np.int64]) -> Complex | None:
        """Points w of independent rows at these ranks; None where there are none."""
        if self.form is not None or not np.array_equal(ranks, self.ranks):
            return None
        return self.points

    def correlated(
        self,
        ranks: NDArray[np.int64],
        levels: Levels,
        population: Array,
        dof: float,
        form: Profile,
    ) -> tuple[Array, Complex] | None:
        """x and e of correlated rows at these ranks; None where this start has rows of none.

        population: [levels] those of `levels`. With other ranks, levels or correlations the
        integrals of the resolvent over rows, which hardly tell one from another, are interpolated
        over the logarithms of ranks, and x and e are what follows from them.
        """
        if self.x is None or self.e is None or self.form is None:
            return None
        if form is self.form and np.array_equal(ranks, self.ranks):
            return self.x, self.e
        nodes = between(self.ranks, ranks)
        places = between(self.levels.ranks, levels.ranks)
        x = np.exp(nodes @ np.log(self.x))
        integrals = np.exp(nodes @ np.log(self.e @ self.form.loadings) @ places.T)
        return x, solution_near(x, integrals, population, levels.counts, dof, form)


def between(known: Array | NDArray[np.int64], wanted: Array | NDArray[np.int64]) -> Array:
    """[wanted, known] weights that interpolate over log rank, from ranks in any order."""
    order = np.argsort(known)
    at = np.log(np.asarray(known)[order])
    place = np.interp(np.log(wanted), at, np.arange(len(at), dtype=np.float64))
    below = np.minimum(place.astype(np.int64), max(len(at) - 2, 0))
    found, row = np.zeros((len(wanted), len(order))), np.arange(len(wanted))
    found[row, order[below]] = 1 - (place - below)
    found[row, order[np.minimum(below + 1, len(at) - 1)]] += place - below
    return found
