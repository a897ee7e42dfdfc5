"""Ending a stream when it is known: every site's interval of the exponent is narrow enough.

Intervals of a stream that is looked at again and again, and ended when it pleases, hold less often
than they say. So the looks are few, at numbers of samples that are fixed beforehand (each
twice that of the one before), and each has a level of its own: the k-th spends alpha_k =
0.05 * 6 / (pi^2 k^2) of the errors, which over all k are 0.05. By the union bound the interval at
the last look, whichever that is, holds with 95% (Jennison & Turnbull 1999, ch. 7, on spending).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from polycode_plugins.adapters.base import Batch
from polycode_plugins.errors import DataError, PolycodeError
from polycode_plugins.metrics.accumulators import Covariance
from polycode_plugins.metrics.base import Metric
from polycode_plugins.metrics.spectrum.metric import Spectrum
from polycode_plugins.metrics.spectrum.result import SpectrumResult
from polycode_plugins.runs.analysis import Analysis
from polycode_plugins.runs.gathering import Statistics, listed

ERRORS = 0.05  # of all looks together
FIRST_LOOK = 1024  # samples at each site, or as many as the widest has features
#: What the rest of the data may take to be counted: seconds, or this share of those before.
COUNTING, COUNTING_SHARE = 2.0, 0.1


def spent(look: int) -> float:
    """The share of errors of the look with this number, from 1."""
    return ERRORS * 6 / (math.pi**2 * look**2)


def level_of(look: int) -> float:
    """The level of intervals at this look, from 1."""
    return 1 - spent(look)


def check_target(
    target: float | None, metrics: Iterable[Metric], *, parts: str | None
) -> list[Spectrum]:
    """The metrics whose exponents have to be known.

    Args:
        target: half-width of the interval.
        metrics: of the run.
        parts: what the run is a part of several for; None for a run of its own.

    Raises:
        DataError: for a target that is none, no spectrum with intervals, or a run in parts.
    """
    if target is None:
        return []
    if isinstance(target, bool) or not isinstance(target, int | float) or not target > 0:
        raise DataError(
            f"target_error is half the width of an exponent's interval, above 0, not {target!r}"
        )
    found = [m for m in metrics if isinstance(m, Spectrum) and m.fit == "debiased"]
    if not found:
        raise DataError(
            "target_error is of the exponent of the metric 'spectrum' with its fit 'debiased', "
            "which is not among the metrics; add it, or leave target_error out"
        )
    if parts is not None:
        raise DataError(
            f"target_error ends a stream by what all of it has shown, and {parts} sees a part of "
            "it; use one process for all of the data, or leave target_error out"
        )
    return found


@dataclass(frozen=True)
class Rest:
    """What was not read.

    Attributes:
        rows: that many, or at least that many.
        whole: whether all were counted.
    """

    rows: int
    whole: bool


class Stopping:
    """The looks at a stream.

    Args:
        target: half-width of the intervals that ends it.
        metrics: whose exponents are meant.

    Attributes:
        reached: whether the stream has ended early.
    """

    def __init__(self, target: float, metrics: Iterable[Spectrum]) -> None:
        self.target = target
        self.metrics = list(metrics)
        self.reached = False
        self.rest: Rest | None = None
        self._widest: list[str] = []  # sites that were too wide last, the latest first

    def after(self, statistics: Statistics, before: int) -> bool:
        """Whether the stream may end after a batch.

        Args:
            statistics: with the batch.
            before: the smallest number of samples at a site before it.
        """
        look = self._look(statistics, samples_of(statistics))
        if look > self._look(statistics, before):
            self.reached = self._narrow(statistics, level_of(look))
        return self.reached

    def _look(self, statistics: Statistics, samples: int) -> int:
        """The number of the last look that is due by so many samples, 0 before the first.

        It depends on nothing else, so that a run that was interrupted goes on with the same looks.
        """
        first = FIRST_LOOK
        for site in statistics.sites:
            for metric in self.metrics:
                held = statistics.accumulators(site, metric.label)["covariance"]
                first = max(first, cast(Covariance, held).width or 0)
        return (samples // first).bit_length()

    def _narrow(self, statistics: Statistics, level: float) -> bool:
        """Whether all intervals are narrow enough; most looks end at the site that was not."""
        order = [*self._widest, *(s for s in statistics.sites if s not in self._widest)]
        for site in order:
            for metric in self.metrics:
                try:
                    result = statistics.compute(site, metric)
                except PolycodeError:  # not yet: more data may bring it
                    half = math.inf
                else:
                    half = half_width(result, level)
                if half > self.target:
                    self._widest = [site, *(s for s in self._widest if s != site)]
                    return False
        return True

    def count_rest(self, batches: Iterable[Batch], seconds: float) -> None:
        """Count the rows that are left, as long as that takes little time.

        Args:
            batches: those that are left; they are read, and not run.
            seconds: that the run has taken.
        """
        rows, began = 0, time.monotonic()
        most = max(COUNTING, COUNTING_SHARE * seconds)
        for batch in batches:
            rows += len(batch)
            if time.monotonic() - began > most:
                self.rest = Rest(rows, False)
                return
        self.rest = Rest(rows, True)

    def applied(self, analysis: Analysis) -> Analysis:
        """The analysis with intervals that hold for all looks, and what came of them in its record.

        A stream that did not end early is looked at once more when it ends.
        """
        look = self._look(analysis.statistics, samples_of(analysis.statistics)) + (not self.reached)
        level = level_of(look)
        reached: dict[str, float | None] = {}
        for site, results in analysis.results.items():
            for metric in self.metrics:
                result = results[metric.label]
                assert isinstance(result, SpectrumResult)
                half = half_width(result, level)
                results[metric.label] = replace(result, power_law=result.power_law.at_level(level))
                known = reached.get(site, 0.0)
                wider = math.inf if known is None else max(known, half)
                reached[site] = wider if math.isfinite(wider) else None
        run = analysis.run
        samples, rows = min(run["samples"].values(), default=0), run["rows"]["count"]
        run["stopping"] = {
            "target": self.target,
            "looks": look,
            "level": level,
            "half_widths": reached,
            "short": [s for s, half in reached.items() if half is None or half > self.target],
            "stopped_early": self.reached,
            "rows_read": rows,
            "samples_read": samples,
            "rows_saved": self.rest.rows if self.rest is not None else 0,
            "samples_saved": round(self.rest.rows * samples / rows) if self.rest and rows else 0,
            "all_counted": self.rest is None or self.rest.whole,
        }
        return analysis


def half_width(result: Any, level: float) -> float:
    """Half the width of the exponent's interval at this level; infinite where there is none."""
    fit = result.power_law.at_level(level)
    return math.inf if fit.interval is None else (fit.interval[1] - fit.interval[0]) / 2


def samples_of(statistics: Statistics | None) -> int:
    """The smallest number of samples at a site."""
    if statistics is None:
        return 0
    return min((statistics.n_samples(site) for site in statistics.sites), default=0)


def sentences(run: Mapping[str, Any]) -> list[str]:
    """What came of a target error, for a terminal and a report; none where none was asked for."""
    found = run.get("stopping")
    if not found:
        return []
    short, halves = found["short"], found["half_widths"]
    looks = f"{found['looks']} look{'' if found['looks'] == 1 else 's'}"
    intervals = (
        f"intervals of the exponents are of level {100 * found['level']:.4g}%, so that they hold "
        f"with 95% for all of {looks} at the data"
    )
    if found["stopped_early"]:
        more = "" if found["all_counted"] else "at least "
        read = f"{found['samples_read']:,} samples a site ({found['rows_read']:,} rows)"
        saved = f"{more}{found['samples_saved']:,} samples ({found['rows_saved']:,} rows)"
        return [
            f"every exponent is known to within {found['target']:g} after {read}: {saved} were not "
            f"needed; {intervals}"
        ]
    if not short:
        return [
            f"every exponent is known to within {found['target']:g} at the end of the data, not "
            f"before; {intervals}"
        ]
    known = [halves[site] for site in short if halves[site] is not None]
    spans = f"to within {min(known):.3g} to {max(known):.3g}" if known else "without an interval"
    none = len(short) - len(known)
    beside = f", {none} of them without an interval" if none and known else ""
    return [
        f"{len(short)} of {len(halves)} sites did not reach the error {found['target']:g} by the "
        f"end of the data ({found['samples_read']:,} samples): {listed(short)} are known {spans}"
        f"{beside}; give more data, or accept a larger error; {intervals}"
    ]
