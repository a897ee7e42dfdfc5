"""CKA between two models or checkpoints: of runs that are there, or of two models in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polycode_plugins.devices import on_host
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.files import storage
from polycode_plugins.files.paths import given
from polycode_plugins.files.provenance import Rows
from polycode_plugins.metrics.cka.cross import CrossCKA, cross_table
from polycode_plugins.metrics.cka.metric import CKA
from polycode_plugins.metrics.cka.samples import KeptSite, kept_site
from polycode_plugins.metrics.reservoir import Reservoir
from polycode_plugins.runs.analysis import Analysis
from polycode_plugins.runs.analyze import analyze


@on_host()
def cka(
    first: Any,
    second: Any,
    data: Any = None,
    sites: Sequence[str] | str | None = None,
    *,
    second_sites: Sequence[str] | str | None = None,
    metric: CKA | None = None,
    **options: Any,
) -> CrossCKA:
    """Debiased linear CKA between all sites of two models or checkpoints, on the same rows.

    Of two runs that were made with the metric `cka` (or another one that keeps a reservoir) it
    needs neither models nor data:

        pc.cka("runs/step-1000", "runs/step-2000")

    Otherwise both models are run on the data, one after the other.

    Args:
        first: an analysis or the folder of a run; or a model, as `pc.analyze` takes it.
        second: another, of the same sort.
        data: what both models read; for models alone.
        sites: of both, or of the first; for models alone.
        second_sites: of the second model, where they have other names.
        metric: with settings, where the defaults are not wanted; for models alone.
        options: for models alone, passed to `pc.analyze`.

    Raises:
        DataError: where samples are too few, a site does not vary, or a run and a model are mixed.
        StateError: where nothing proves that both runs read the same rows, or one keeps no samples
            of them, or both keep other ones.
    """
    runs = [_run_of(one) for one in (first, second)]
    if runs[0] is None and runs[1] is None:
        wanted = metric if metric is not None else CKA()
        others = sites if second_sites is None else second_sites
        made = [
            analyze(model, data, [wanted], chosen, **options)
            for model, chosen in ((first, sites), (second, others))
        ]
        return cross_cka(made[0], made[1])
    one, other = runs
    if one is None or other is None:
        raise DataError(
            "a run can be compared with a run, and a model with a model; analyse the model with "
            "the metric 'cka' on the data of the run, and compare the two runs"
        )
    if data is not None or sites is not None or second_sites is not None or options or metric:
        raise DataError(
            "data, sites, metric and options are for models; what two runs have in common is "
            "compared as it is"
        )
    return cross_cka(one, other)


def cross_cka(first: Analysis, second: Analysis) -> CrossCKA:
    """`cka` of two analyses.

    Raises:
        DataError: where samples are too few, or a site does not vary.
        StateError: where nothing proves that both read the same rows, or one keeps none of them.
    """
    same_rows(first, second)
    one, other = reservoirs(first, "first"), reservoirs(second, "second")
    seeds = [next(iter(held.values())).seed for held in (one, other)]
    if seeds[0] != seeds[1]:
        raise StateError(
            f"the runs kept other samples (seed {seeds[0]} and {seeds[1]}); make both with one "
            "seed of the metric 'cka'"
        )
    return cross_table(_kept(first, one), _kept(second, other))


def same_rows(first: Analysis, second: Analysis) -> None:
    """Raise StateError unless both runs are proven to have read the same rows of the same data."""
    rows = [Rows.from_json(analysis.run["rows"]) for analysis in (first, second)]
    for analysis, read in zip((first, second), rows, strict=True):
        if not read.count:
            raise StateError(
                f"what was {analysis.run.get('data')} has rows without numbers, so nothing proves "
                "that both runs are of the same rows; make both with pc.analyze, or compare arrays "
                "with pc.metrics.CKA().measure(x, y)"
            )
    if rows[0].count != rows[1].count:
        raise StateError(
            f"the runs are of other rows: {rows[0].count:,} and {rows[1].count:,} of them; CKA "
            "needs the same data, limit and context"
        )
    # The digest is that of numbers and contents together; ranges may be cut otherwise.
    if rows[0].digest != rows[1].digest:
        raise StateError(
            "the runs are of other rows (their digests in run.json differ): other data, another "
            "tokenizer, context or special tokens; CKA needs the same"
        )


def _run_of(one: Any) -> Analysis | None:
    if isinstance(one, Analysis):
        return one
    if isinstance(one, str | Path) and (given(one) / storage.RUN).is_file():
        return Analysis.load(one)
    return None


def reservoirs(analysis: Analysis, which: str) -> dict[str, Reservoir]:
    """The reservoir of each site: of those that metrics keep, the largest.

    Raises:
        StateError: where there is none; `which` run it is, is said.
    """
    held: list[dict[str, Reservoir]] = []
    for metric in analysis.metric_objects:
        for name, accumulator in metric.accumulators().items():
            if isinstance(accumulator, Reservoir):
                statistics = analysis.statistics  # which may be large: read only for this
                found = {
                    s: statistics.accumulators(s, metric.label)[name] for s in statistics.sites
                }
                held.append({s: a for s, a in found.items() if isinstance(a, Reservoir)})
    if not held:
        raise StateError(
            f"the {which} run has kept no samples that could be compared; make it with the metric "
            "'cka' among its metrics"
        )
    return max(held, key=lambda found: next(iter(found.values())).size)


def _kept(analysis: Analysis, held: dict[str, Reservoir]) -> list[KeptSite]:
    ordered = sorted(analysis.sites, key=lambda site: site.depth)
    return [kept_site(site.name, site.axes, held[site.name]) for site in ordered]
