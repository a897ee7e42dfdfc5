"""One measurement: a fixed evaluation batch through the model as it is now, and what it shows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from polycode_plugins.activations import Site
from polycode_plugins.adapters.base import Adapter, Batch
from polycode_plugins.adapters.patterns import by_default
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.data_options import DataOptions
from polycode_plugins.devices import on_host
from polycode_plugins.errors import DataError, PolycodeError
from polycode_plugins.files.content import ContentDigest
from polycode_plugins.files.provenance import FORMAT, Rows, environment
from polycode_plugins.files.weights import identified
from polycode_plugins.metrics.base import Metric, Result
from polycode_plugins.metrics.cka.cross import cross_table
from polycode_plugins.metrics.cka.metric import CKA, RESERVOIR
from polycode_plugins.metrics.cka.samples import KeptSite, kept_site
from polycode_plugins.metrics.reservoir import Reservoir
from polycode_plugins.runs.analysis import Analysis, finish, record
from polycode_plugins.runs.gathering import Statistics
from polycode_plugins.runs.memory import side_by_side
from polycode_plugins.training.history import Number

Kept = Mapping[str, KeptSite]  # by site


@dataclass
class Measured:
    """What one measurement gave; see `Point`.

    Attributes:
        numbers: by site, then by "label.field".
        problems: by site.
        statistics: what they were computed from.
        kept: the samples that each site kept for CKA.
    """

    numbers: dict[str, dict[str, Number]]
    problems: dict[str, str]
    statistics: Statistics
    kept: Kept


class EvaluationBatch:
    """The rows that a model is measured on, always the same ones, with sites and metrics.

    Args:
        adapter: of the model.
        data: what it reads; read once, here, and kept.
        metrics: what is measured.
        sites: names or globs; the adapter's default when None.
        options: how the data is read.

    Raises:
        PolycodeError: for everything that no measurement could read: sites that are not there, data
            that the model does not take, a site that can have no result.
    """

    @on_host()
    def __init__(
        self,
        adapter: Adapter,
        data: Any,
        metrics: Sequence[Metric],
        sites: Sequence[str] | str | None,
        options: DataOptions,
    ) -> None:
        self.adapter = adapter
        self.options = options
        # CKA of one step's sites with one another is not asked for: it is taken to the first step.
        self.metrics = [metric for metric in metrics if not isinstance(metric, CKA)]
        self._likeness = next((metric for metric in metrics if isinstance(metric, CKA)), None)
        self._all = list(metrics)
        with undisturbed(adapter.model):  # a loader that shuffles draws
            self.batches: list[Batch] = list(adapter.batches(data, options))
            if not self.batches:
                raise DataError("the evaluation data holds no row")
            self.rows = _rows(self.batches)
            self.sites: list[Site] = adapter.resolve(sites, self.batches[0])
            trial = Statistics(self._all, self.sites)
            self._take(trial, self.batches[:1])
            if by_default(sites):
                trial.drop_refused()
                self.sites = list(trial.sites.values())
            trial.check_sites()

    @on_host()
    def measured(self, first: Kept | None) -> Measured:
        """Run the batch through the model as it is, and compute.

        Args:
            first: what the first measurement kept; None for the first.

        Raises:
            Exception: whatever the model raises.
        """
        statistics = Statistics(self._all, self.sites)
        with undisturbed(self.adapter.model):
            self._take(statistics, self.batches)
        found: dict[str, dict[str, Number]] = {site.name: {} for site in self.sites}
        problems: dict[str, str] = {}
        with undisturbed(), torch.enable_grad():  # a metric may draw, or train something
            for site, label, result in _results(statistics, self.metrics):
                if isinstance(result, PolycodeError):
                    problems.setdefault(site, str(result))
                else:
                    found[site] |= {f"{label}.{k}": v for k, v in numbers_of(result).items()}
        kept = self.kept(statistics)
        for site, one in kept.items():
            other = one if first is None else first.get(site)
            if other is None:
                continue
            try:
                found[site][f"{self._label}.to_first"] = _likeness(other, one)
            except PolycodeError as error:
                problems.setdefault(site, str(error))
        return Measured(found, problems, statistics, kept)

    @property
    def _label(self) -> str:
        return self._likeness.label if self._likeness is not None else CKA.name

    def kept(self, statistics: Statistics) -> dict[str, KeptSite]:
        """The samples that CKA is made of; none where it is not asked for."""
        if self._likeness is None:
            return {}
        found = {}
        for site in statistics.sites.values():
            held = statistics.accumulators(site.name, self._likeness.label)[RESERVOIR]
            found[site.name] = kept_site(site.name, site.axes, cast(Reservoir, held))
        return found

    def _take(self, statistics: Statistics, batches: Iterable[Batch]) -> None:
        for batch in batches:
            statistics.begin(batch.labels)
            sites = list(statistics.sites.values())
            self.adapter.run(batch, sites, statistics.receive, seed=self.options.seed)
            statistics.batches += 1

    def record(self) -> dict[str, Any]:
        """What measurements have in common, as JSON values."""
        run = record(Statistics(self._all, self.sites), rows=self.rows.to_json())
        return {
            "model": self.adapter.describe(),
            "metrics": run["metrics"],
            "sites": [site.name for site in self.sites],
            "rows": run["rows"],
            "seed": self.options.seed,
        }

    def analysis(self, statistics: Statistics, step: int) -> Analysis:
        """A measurement as a run of its own, with all results.

        Raises:
            PolycodeError: where a site has no result.
        """
        content = ContentDigest()
        content.add_value([batch.inputs for batch in self.batches])
        run = record(
            statistics,
            **environment(),
            format=FORMAT,
            model=identified(self.adapter.describe(), self.adapter.model),
            data=f"the evaluation batch of a training run, at step {step}",
            seed=self.options.seed,
            options=self.options.lasting() | {"train_mode": False},
            rows=self.rows.to_json(),
            content=content.hexdigest(),
            batches=len(self.batches),
            complete=True,
        )
        with undisturbed(), torch.enable_grad():
            return finish(statistics, run)


def numbers_of(result: Result) -> dict[str, Number]:
    """The numbers of a result that are followed over steps: those that maps and headlines show."""
    scalars, spans = result.scalars(), result.intervals()
    fields = dict.fromkeys([*result.mapped, *result.headline])
    floats = [f for f in (fields or scalars) if isinstance(scalars.get(f), float)]
    return {
        f: (cast(float, scalars[f]), *spans.get(f, (None, None)))
        for f in floats
        if not f.startswith("interval_")  # stands beside its number
    }


def sharded(model: Any) -> str:
    """Why one process alone cannot run a model: "" where it can."""
    if not isinstance(model, torch.nn.Module):
        return ""
    kinds = {type(module).__name__ for module in model.modules()}
    spread = any(hasattr(p, "ds_id") or hasattr(p, "device_mesh") for p in model.parameters())
    if not spread and not kinds & {"FullyShardedDataParallel", "FSDP"}:
        return ""
    return (
        "the weights are spread over processes (FSDP, DeepSpeed or tensor parallelism), and one of "
        "them cannot run the model alone; analyse the saved checkpoints with pc.analyze instead"
    )


def _rows(batches: Iterable[Batch]) -> Rows:
    rows = Rows()
    for batch in batches:
        beside = {"mask": batch.mask, "documents": batch.documents, "labels": batch.labels}
        rows = rows.extended(batch.rows, batch.inputs, **beside)
    return rows


def _likeness(first: KeptSite, now: KeptSite) -> Number:
    table = cross_table([first], [now])
    value, low, high = (float(one[0, 0]) for one in (table.cka, table.low, table.high))
    if value != value:
        raise DataError("the samples kept are not those of the first measurement")
    return (value, low, high) if low == low else (value, None, None)


def _results(
    statistics: Statistics, metrics: Sequence[Metric]
) -> list[tuple[str, str, Result | PolycodeError]]:
    """(site, label, result or why there is none): one site without a result spares the others."""

    def computed(site: str, metric: Metric) -> Result | PolycodeError:
        try:
            return statistics.compute(site, metric)
        except PolycodeError as error:
            return error

    names = list(statistics.sites)
    found: list[tuple[str, str, Result | PolycodeError]] = []
    with side_by_side(min(len(names), os.cpu_count() or 1)) as pool:
        for metric in metrics:
            together: Mapping[str, Result] = {}
            if metric.side_by_side:
                results = list(pool.map(lambda site, m=metric: computed(site, m), names))
            else:
                try:
                    together = statistics.compute_all(metric) or {}
                except PolycodeError as error:
                    found += [(site, metric.label, error) for site in names]
                    continue
                results = [together.get(site) or computed(site, metric) for site in names]
            found += [(s, metric.label, r) for s, r in zip(names, results, strict=True)]
    return found
