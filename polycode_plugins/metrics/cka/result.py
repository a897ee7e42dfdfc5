"""What the `cka` metric says of a site: how alike its code and those of the other sites are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from polycode_plugins.metrics.base import Result
from polycode_plugins.metrics.cka.alignment import LEAST_FOR_INTERVAL, Floats, Integers
from polycode_plugins.metrics.cka.samples import PairTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from polycode_plugins.metrics.chapter import View
    from polycode_plugins.pages.pages import Part

_ARRAYS = ("cka", "low", "high", "naive")


@dataclass(frozen=True, eq=False)
class CKAResult(Result):
    """Debiased linear CKA of one site with every site of the run, itself included.

    The value is that of the population: 0 for independent codes, 1 for codes that are rotations and
    multiples of each other. It is unbiased up to its ratio, so by chance it may lie slightly below
    0 or above 1. It has no unit.

    Attributes:
        site: the site's name.
        sites: names of all sites, in depth order.
        cka: float64 [sites], NaN where two sites have no sample in common.
        low, high: float64 [sites], ends of the 95% interval for documents drawn like these; NaN
            where these are too few for one.
        naive: float64 [sites], CKA of the samples as they are, too high where samples are few.
        samples: int64 [sites], samples that both kept.
        groups: int64 [sites], groups of independent samples these were dealt into.
        unit: what was taken for independent of each other: "documents", or, where these are too
            few, "rows" or "samples".
        ruled: how many samples make half of the site's variance, where these are at most 2.5% of
            all; 0 otherwise.
        warnings: sentences on what makes the numbers doubtful; empty is good.
    """

    title: ClassVar[str] = "Likeness of sites (CKA)"
    reading: ClassVar[str] = (
        "Linear CKA says how alike two codes are up to rotation and scale: 1 for the same code, 0 "
        "for independent ones. Directions of large variance count most."
    )
    names: ClassVar[Mapping[str, str]] = {
        "to_previous": "CKA with the site before",
        "to_first": "CKA with the first site",
        "to_last": "CKA with the last site",
    }
    headline: ClassVar[tuple[str, ...]] = (
        "to_previous",
        "interval_low",
        "interval_high",
        "to_first",
        "to_last",
        "n_samples",
    )
    mapped: ClassVar[tuple[str, ...]] = ("to_previous", "to_last")

    site: str
    sites: tuple[str, ...]
    cka: Floats
    low: Floats
    high: Floats
    naive: Floats
    samples: Integers
    groups: Integers
    unit: str
    ruled: int
    warnings: tuple[str, ...]

    @property
    def n_samples(self) -> int:
        """Samples that the site kept."""
        return int(self.samples[self.at])

    @property
    def at(self) -> int:
        """Place of the site among `sites`."""
        return self.sites.index(self.site)

    @property
    def to_previous(self) -> float | None:
        """CKA with the site before this one in depth order."""
        return _defined(self.cka, self.at - 1)

    @property
    def to_first(self) -> float | None:
        """CKA with the first site."""
        return _defined(self.cka, 0 if self.at else -1)

    @property
    def to_last(self) -> float | None:
        """CKA with the last site."""
        last = len(self.sites) - 1
        return _defined(self.cka, last if self.at < last else -1)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval of `to_previous`."""
        low, high = (_defined(end, self.at - 1) for end in (self.low, self.high))
        return None if low is None or high is None else (low, high)

    def intervals(self) -> Mapping[str, tuple[float, float]]:
        """Of CKA with the site before, the first and the last one."""
        last = len(self.sites) - 1
        places = {
            "to_previous": self.at - 1,
            "to_first": 0 if self.at else -1,
            "to_last": last if self.at < last else -1,
        }
        ends = {n: (_defined(self.low, at), _defined(self.high, at)) for n, at in places.items()}
        return {n: (a, b) for n, (a, b) in ends.items() if a is not None and b is not None}

    @classmethod
    def of(cls, table: PairTable, sites: Sequence[str], at: int) -> Self:
        """The result for one line of the table of all pairs of `sites`."""
        return cls(
            site=sites[at],
            sites=tuple(sites),
            cka=table.values[at],
            low=table.low[at],
            high=table.high[at],
            naive=table.naive[at],
            samples=table.samples[at],
            groups=table.groups[at],
            unit=str(table.units[at, at]),
            ruled=table.ruled[at],
            warnings=tuple(_doubts(table, at)),
        )

    def scalars(self) -> dict[str, float | int | str | bool | None]:
        """What fits into a table."""
        low, high = self.interval or (None, None)
        return {
            "to_previous": self.to_previous,
            "interval_low": low,
            "interval_high": high,
            "to_first": self.to_first,
            "to_last": self.to_last,
            "n_samples": self.n_samples,
            "groups": int(self.groups[self.at]),
            "unit": self.unit,
        }

    @classmethod
    def findings(cls, view: View) -> Sequence[str]:
        """Where the code changes most from one site to the next."""
        from polycode_plugins.metrics.cka.chapter import findings

        return findings(view.sites, view.results)

    @classmethod
    def chapter(cls, view: View) -> Sequence[Part]:
        """How to read it, the matrix of all pairs, neighbours by depth, a table."""
        from polycode_plugins.metrics.cka.chapter import cka_parts

        return cka_parts(view)

    def plot(self, ax: Axes | None = None) -> Axes:
        """CKA with every site by depth, with its interval."""
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(layout="constrained")
        depth = np.arange(len(self.sites))
        ax.fill_between(depth, self.low, self.high, alpha=0.25, lw=0)
        ax.plot(depth, self.cka, "o-", ms=3, lw=1)
        ax.plot([self.at], [1.0], "k|", ms=12)
        ax.set_ylim(min(0.0, float(np.nanmin(self.cka))) - 0.02, 1.05)
        ax.set_xlabel("site, by depth")
        ax.set_ylabel(f"CKA with {self.site}")
        return ax


def _defined(values: Floats, at: int) -> float | None:
    """The value at a place, None for places below 0 and NaN."""
    return None if at < 0 or np.isnan(values[at]) else float(values[at])


def _doubts(table: PairTable, at: int) -> list[str]:
    said = []
    unit = table.units[at, at]
    kept = int(table.samples[at, at])
    if unit == "rows":
        said.append(
            "there are too few documents to compare pairs of different ones, so rows were taken as "
            "independent: where those of one document resemble each other, CKA is too high. There "
            "is no interval; give more documents."
        )
    elif unit == "samples":
        said.append(
            "there are too few rows, or nothing tells which samples belong together, so all "
            "samples were taken as independent: where they resemble each other, CKA is too high. "
            "There is no interval; give more rows."
        )
    elif len(table.values) > 1 and np.isnan(table.low[at, at]):
        said.append(
            f"the documents are worth {table.worth[at, at]:.1f} of one length, too few for an "
            f"interval, which needs {LEAST_FOR_INTERVAL:.0f}; give more documents."
        )
    if ruled := table.ruled[at]:
        said.append(
            f"{ruled} of {kept} samples make half of the variance, so CKA compares these above "
            "all; leave them out (special tokens, the first position) to compare the others."
        )
    if apart := int(table.apart[at].sum()):
        said.append(
            f"{apart} sites are at other positions of a row than this one (another stream of the "
            "model), so there is no CKA with them."
        )
    if len(table.values) == 1:
        said.append("it is the only site of the run, so there is nothing to compare it with.")
    return said
