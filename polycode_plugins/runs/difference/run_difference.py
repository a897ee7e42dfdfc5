"""Two runs side by side: what differs, by site, with intervals; and how alike their codes are."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from polycode_plugins.devices import on_host
from polycode_plugins.errors import DataError, PolycodeError, SiteError, near
from polycode_plugins.files.paths import given
from polycode_plugins.metrics.base import Grave, Result
from polycode_plugins.metrics.error_correlation import ErrorCorrelation
from polycode_plugins.runs.analysis import Analysis
from polycode_plugins.runs.cross_cka import cross_cka
from polycode_plugins.runs.difference.interval import between, paired
from polycode_plugins.runs.difference.notes import common_metrics, run_notes, unpaired_notes
from polycode_plugins.runs.difference.pairing import Pairing, Pairings

if TYPE_CHECKING:
    import pandas as pd

    from polycode_plugins.metrics.cka.cross import CrossCKA

#: Fields that say how much was read, or where an interval ends: no findings.
_ASIDE = ("_low", "_high")
_COUNTS = ("n_samples", "n_rows", "n_steps", "effective_samples", "groups", "width")


@dataclass(frozen=True)
class Difference:
    """One number of one site in both runs.

    Attributes:
        site: name of the site in the first run. other: in the second.
        metric: the metric's label. field: of `Result.scalars()`.
        first, second: the number in each run.
        interval: 95% (low, high) of the second less the first; None where one of them has none.
        doubtful: whether one of the results warns of it: `Grave` warnings are of the first number
            of the headline, others of all.
        errors: how the errors of both go together, from the rows that both runs read; None where
            the interval is that of independent runs.
        counted: the correlation that the interval counts on, careful: nearer 0 than estimated where
            errors go together. 0 is an interval of independent runs.
        unpaired: why it is; "" where there is no interval, or one that is paired.
    """

    site: str
    other: str
    metric: str
    field: str
    first: float
    second: float
    interval: tuple[float, float] | None
    doubtful: bool
    errors: ErrorCorrelation | None = None
    counted: float = 0.0
    unpaired: str = ""

    @property
    def paired(self) -> bool:
        """Whether the interval takes into account that both runs read the same rows."""
        return self.errors is not None

    @property
    def difference(self) -> float:
        """The second less the first."""
        return self.second - self.first

    @property
    def evident(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


class RunDifference:
    """Two analyses side by side; see `diff`.

    Attributes:
        first, second: the analyses.
        names: what they are called.
        pairs: (site of the first, site of the second) that are compared, in depth order.
        differences: of every number at every pair.
        changes: (pair, metric, field, first, second) of texts and flags that differ.
        only: sites that have no partner, of each run.
        notes: sentences on what else than the model differs, and on what the intervals hold.
        likeness: CKA of all sites of the first with all of the second; None where it has none.
        why: why there is no CKA; "" where there is.
    """

    def __init__(
        self,
        first: Analysis,
        second: Analysis,
        pairs: Sequence[tuple[str, str]],
        names: tuple[str, str],
        *,
        paired: bool = True,
    ) -> None:
        self.first, self.second, self.names = first, second, names
        self.pairs = list(pairs)
        self.only = (
            [s for s in first if s not in {a for a, _ in pairs}],
            [s for s in second if s not in {b for _, b in pairs}],
        )
        self.metrics, said = common_metrics(first, second)
        self.differences: list[Difference] = []
        self.changes: list[tuple[str, str, str, Any, Any]] = []
        pairings = Pairings(first, second, wanted=paired)
        for a, b in self.pairs:
            for label in self.metrics:
                one, other = first[a, label], second[b, label]
                shared = [n for n in one.intervals() if n in other.intervals()]
                self._enter(a, b, label, one, other, pairings.of(a, b, label, shared))
        self.likeness: CrossCKA | None = None
        self.why = ""
        try:
            self.likeness = cross_cka(first, second)
        except PolycodeError as error:
            self.why = str(error)
        self.notes = [
            *said,
            *run_notes(first, second),
            *unpaired_notes(self.differences, pairings.why),
        ]

    def _enter(
        self, a: str, b: str, label: str, one: Result, other: Result, pairing: Pairing
    ) -> None:
        values, others = one.scalars(), other.scalars()
        ends, other_ends = one.intervals(), other.intervals()
        warnings = (*one.warnings, *other.warnings)
        grave = any(isinstance(w, Grave) for w in warnings)
        care = any(not isinstance(w, Grave) for w in warnings)
        main = next((f for f in (*one.headline, *values) if _number(values.get(f))), None)
        for field, value in values.items():
            second = others.get(field)
            if _number(value) and _number(second):
                if field.endswith(_ASIDE):
                    continue
                interval, errors, counted, why = None, None, 0.0, ""
                if field in ends and field in other_ends:
                    pair = ends[field], other_ends[field]
                    errors, why = pairing.correlations.get(field), pairing.reason(field)
                    if errors is None:
                        interval = between(value, pair[0], second, pair[1])
                    else:
                        interval, counted = paired(value, pair[0], second, pair[1], errors)
                doubt = care or (grave and field == main)
                self.differences.append(
                    Difference(
                        site=a,
                        other=b,
                        metric=label,
                        field=field,
                        first=float(value),
                        second=float(second),
                        interval=interval,
                        doubtful=doubt,
                        errors=errors,
                        counted=counted,
                        unpaired=why,
                    )
                )
            elif value != second and isinstance(value, str | bool) and second is not None:
                self.changes.append((a, label, field, value, second))

    def __repr__(self) -> str:
        found = [d for d in self.differences if d.interval is not None]
        evident = sum(d.evident for d in found)
        return (
            f"RunDifference({len(self.pairs)} sites, metrics: {', '.join(self.metrics)}; "
            f"{evident} of {len(found)} differences with an interval are evident)"
        )

    def headline(self, label: str) -> list[str]:
        """Fields of a metric that say most and are numbers in both runs, in order."""
        known = {d.field for d in self.differences if d.metric == label}
        kind = type(self.first[self.pairs[0][0], label])
        fields = [f for f in (*kind.headline, *kind.mapped) if f in known and f not in _COUNTS]
        bounded = {d.field for d in self.differences if d.metric == label and d.interval}
        chosen = dict.fromkeys(fields) or dict.fromkeys(
            d.field for d in self.differences if d.field in bounded
        )
        return list(chosen)

    def of(self, label: str, field: str) -> list[Difference | None]:
        """The differences of one field, one for each pair; None where it is undefined."""
        held = {(d.site, d.metric, d.field): d for d in self.differences}
        return [held.get((a, label, field)) for a, _ in self.pairs]

    def to_dataframe(self) -> pd.DataFrame:
        """One row per site, metric and field: both numbers, the difference and its interval.

        `paired` says whether the interval takes into account that both runs read the same rows,
        `unpaired` why it does not; `correlation` is that of both numbers' errors, with its standard
        error, and `correlation_counted` what the interval counts on.
        """
        import pandas as pd

        rows = [
            {
                "site": d.site,
                "other": d.other,
                "metric": d.metric,
                "field": d.field,
                "first": d.first,
                "second": d.second,
                "difference": d.difference,
                "low": math.nan if d.interval is None else d.interval[0],
                "high": math.nan if d.interval is None else d.interval[1],
                "evident": d.evident,
                "doubtful": d.doubtful,
                "paired": d.paired,
                "correlation": math.nan if d.errors is None else d.errors.estimate,
                "correlation_error": math.nan if d.errors is None else d.errors.error,
                "correlation_counted": math.nan if d.errors is None else d.counted,
                "unpaired": d.unpaired,
            }
            for d in self.differences
        ]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        frame = self.to_dataframe()
        return {
            "names": list(self.names),
            "differences": json.loads(frame.to_json(orient="records")) if len(frame) else [],
            "changes": [list(change) for change in self.changes],
            "only": [list(sites) for sites in self.only],
            "notes": list(self.notes),
            "likeness": None if self.likeness is None else self.likeness.to_dict(),
            "no_likeness": self.why,
        }

    def report(self, path: str | Path) -> Path:
        """Write both runs side by side as one self-contained HTML file.

        Raises:
            PluginError: when the report extra is not installed.
            StateError: when the file cannot be written.
        """
        from polycode_plugins.report import write_difference

        return write_difference(self, given(path))


@on_host()
def diff(
    first: Analysis | str | Path,
    second: Analysis | str | Path,
    *,
    sites: Mapping[str, str] | None = None,
    paired: bool = True,
) -> RunDifference:
    """Two runs side by side: differences by site with intervals, and CKA where rows agree.

    Sites of one name are compared. Metrics are those with one label in both. The interval of a
    difference is made of both results' intervals (Zou & Donner 2008, MOVER). Where both runs are
    proven to have read the same rows and kept samples of them (the metric `cka`), it is paired: how
    the errors of both go together is estimated from these samples, summed by documents, and
    counted on with care. Otherwise it is that of independent runs, and a sentence says why.

    Args:
        first: an analysis, or the folder of a run.
        second: another.
        sites: {site of the first: site of the second}, where names differ.
        paired: whether to pair intervals where that can be done. It takes the eigenvectors of each
            site's covariance, which for very wide sites are a matter of minutes.

    Raises:
        DataError: where no site or no metric is in both.
        SiteError: for a site in `sites` that is not there.
        StateError: for a folder without a run.
    """
    one, other = (a if isinstance(a, Analysis) else Analysis.load(a) for a in (first, second))
    names = _names(first, second, one, other)
    if sites is not None:
        for wanted, held in ((sites, one), (sites.values(), other)):
            for name in wanted:
                if name not in held.results:
                    raise SiteError(f"no site {name!r} in this run{near(name, held.results)}")
        pairs = [(s, sites[s]) for s in one if s in sites]
    else:
        pairs = [(s, s) for s in one if s in other.results]
    if not pairs:
        raise DataError(
            f"the runs have no site in common ({next(iter(one))!r}, .. and {next(iter(other))!r}, "
            "..); say which belong together, with sites={first: second} (--pair FIRST=SECOND)"
        )
    return RunDifference(one, other, pairs, names, paired=paired)


def _names(first: Any, second: Any, one: Analysis, other: Analysis) -> tuple[str, str]:
    """What the runs are called: the folders' last parts that differ, else first and second."""
    if isinstance(first, Analysis) or isinstance(second, Analysis):
        return "first", "second"
    a, b = Path(first).resolve().parts, Path(second).resolve().parts
    names = a[-1], b[-1]
    if names[0] == names[1]:
        at = next((i for i in range(1, min(len(a), len(b)) + 1) if a[-i] != b[-i]), 1)
        names = "/".join(a[-at:]), "/".join(b[-at:])
    return names if names[0] != names[1] else ("first", "second")


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
