"""Which numbers of two runs err together, and how much: what pairs the intervals of differences.

Both runs keep samples for CKA, the same ones of the same rows. What each of these adds to the
errors of both runs' numbers says how the errors go together (see `metrics.error_correlation`).
Whatever stands in the way is one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from polycode_plugins.errors import DataError, PolycodeError, StateError
from polycode_plugins.metrics.base import Metric
from polycode_plugins.metrics.cka.samples import own_documents
from polycode_plugins.metrics.error_correlation import (
    ErrorCorrelation,
    KeptDocuments,
    error_correlation,
)
from polycode_plugins.metrics.influences import Influences
from polycode_plugins.metrics.reservoir import OWN_ROW, Reservoir, in_both
from polycode_plugins.precision import full_precision
from polycode_plugins.runs.analysis import Analysis
from polycode_plugins.runs.cross_cka import reservoirs, same_rows


@dataclass(frozen=True)
class Pairing:
    """What is known of one metric at a pair of sites.

    Attributes:
        correlations: {field: correlation of both runs' errors}.
        why: why there are none, or none of some; "" where there are.
        unpaired: {field: why it has none}, of those that have their own reason.
    """

    correlations: Mapping[str, ErrorCorrelation] = field(default_factory=dict)
    why: str = ""
    unpaired: Mapping[str, str] = field(default_factory=dict)

    def reason(self, name: str) -> str:
        """Why the difference of a number is not paired; "" where it is."""
        return "" if name in self.correlations else self.unpaired.get(name) or self.why


class Pairings:
    """Pairings of two runs, one for each metric at each pair of sites.

    Attributes:
        why: why nothing can be paired; "" where something may.
    """

    def __init__(self, first: Analysis, second: Analysis, *, wanted: bool = True) -> None:
        self._runs = first, second
        self._rows = 0
        self._held: list[dict[str, Reservoir]] = []
        self._known: dict[tuple[str, str], _Both | str] = {}
        self.why = "" if wanted else "that was asked for, by paired=False or --unpaired"
        if self.why:
            return
        try:
            same_rows(first, second)
            self._rows = int(first.run["rows"]["count"])
            self._held = [reservoirs(a, n) for a, n in ((first, "first"), (second, "second"))]
            seeds = [next(iter(held.values())).seed for held in self._held]
            if seeds[0] != seeds[1]:
                raise StateError(
                    f"the runs kept other samples of their rows (seed {seeds[0]} and {seeds[1]}); "
                    "make both with one seed of the metric 'cka'"
                )
        except PolycodeError as error:
            self.why = str(error)

    def of(self, site: str, other: str, label: str, fields: Sequence[str]) -> Pairing:
        """How the errors of these fields of a metric go together at a pair of sites."""
        if self.why or not fields:
            return Pairing(why=self.why)
        both = self._both(site, other)
        if isinstance(both, str):
            return Pairing(why=both)
        found = []
        for run, name, samples in zip(self._runs, (site, other), both.samples, strict=True):
            metric = next(m for m in run.metric_objects if m.label == label)
            if type(metric).influences is Metric.influences:
                return Pairing(why=_WITHOUT.format(metric.name))
            found.append(_influences(run, metric, name, samples))
            if isinstance(found[-1], str):
                return Pairing(why=found[-1])
        one, two = (part for part in found if isinstance(part, Influences))
        correlations, unpaired = {}, {}
        for name in fields:
            if name not in one.values or name not in two.values:
                unpaired[name] = _WITHOUT.format(name.replace("_", " "))
                continue
            try:
                correlations[name] = error_correlation(
                    both.kept,
                    one.values[name],
                    two.values[name],
                    independent=one.independent and two.independent,
                )
            except DataError as error:
                unpaired[name] = str(error)
        return Pairing(correlations, unpaired=unpaired)

    def _both(self, site: str, other: str) -> _Both | str:
        """The samples that both sites kept, or why there are none."""
        if (site, other) not in self._known:
            self._known.clear()  # one pair after the other, and samples take room
            try:
                found: _Both | str = _in_common(
                    self._held[0][site], self._held[1][other], self._rows
                )
            except PolycodeError as error:
                found = str(error)
            self._known[site, other] = found
        return self._known[site, other]


#: Why a metric, or one of its numbers, is not paired.
_WITHOUT = (
    "nothing says what a sample adds to the error of {} (no `Metric.influences` of it), so its "
    "interval is that of independent runs"
)


@dataclass(frozen=True, eq=False)
class _Both:
    """Samples that two sites kept: [samples, width] of each, and their documents."""

    samples: tuple[Tensor, Tensor]
    kept: KeptDocuments


def _in_common(first: Reservoir, second: Reservoir, rows: int) -> _Both:
    """Samples that both kept.

    Raises:
        DataError: where there are none, or what depends on what differs between the sites.
    """
    (left, one), (right, two) = first.samples(), second.samples()
    i, j = in_both(*(np.stack([c.row, c.draw], axis=1) for c in (left, right)))
    if not len(i):
        raise DataError("the sites kept no sample of the same row")
    if first.n_samples != second.n_samples:
        raise DataError(
            f"the sites have {first.n_samples:,} and {second.n_samples:,} samples of the same rows "
            "(positions of another stream, or maps of another resolution), so they do not err "
            "together sample by sample; compare sites that have the same"
        )
    if not np.array_equal(left.place[i], right.place[j]):
        raise DataError(
            "the sites see different positions of a row, so no sample has a pair; compare sites of "
            "one stream"
        )
    # Two draws of an image may fall on one place.
    places = np.stack([left.row[i], left.place[i]], axis=1)
    at = np.sort(np.unique(places, axis=0, return_index=True)[1])
    twice = len(at) < len(i)
    i, j = i[at], j[at]
    documents, others = (
        np.where(held == OWN_ROW, own_documents(rows_of), held)
        for held, rows_of in (
            (one.documents.numpy()[i], left.row[i]),
            (two.documents.numpy()[j], right.row[j]),
        )
    )
    if not np.array_equal(documents, others):
        raise DataError(
            "the sites' rows belong to other documents in one run than in the other, so what is "
            "independent of what differs; make both runs with the same documents"
        )
    kept = KeptDocuments.of(left.row[i], documents, first.n_samples, rows, even=twice)
    return _Both((one.values[torch.from_numpy(i)], two.values[torch.from_numpy(j)]), kept)


def _influences(run: Analysis, metric: Metric, site: str, samples: Tensor) -> Influences | str:
    """Influences at one site, or why there are none."""
    accumulators = run.statistics.accumulators(site, metric.label)
    try:
        with full_precision():
            found = metric.influences(accumulators, run[site, metric.label], samples)
    except PolycodeError as error:
        return str(error)
    wrong = [n for n, v in found.values.items() if np.shape(v) != (len(samples),)]
    if wrong:
        return (
            f"the influences of {metric.name} on {wrong[0]!r} are not one number for each sample; "
            "mend `Metric.influences` of its plugin"
        )
    return found
