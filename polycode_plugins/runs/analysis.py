"""`Analysis`: the results of metrics over the sites of a model, with everything needed to go on.

It holds the results, the statistics they were computed from (what merge and resume read), and the
record of the run (what made it).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from polycode_plugins.activations import AXES, Site
from polycode_plugins.errors import DataError, PolycodeError, SiteError, StateError, near
from polycode_plugins.files import guards, storage
from polycode_plugins.files.paths import given
from polycode_plugins.files.provenance import Rows, same_analysis
from polycode_plugins.metrics.base import Metric, Result
from polycode_plugins.metrics.names import describe_metric, rebuild_metrics
from polycode_plugins.metrics.site_warnings import SiteWarning, all_warnings
from polycode_plugins.runs.gathering import Results, Statistics, listed
from polycode_plugins.runs.memory import Room, side_by_side

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


_AT_ONCE = 2**29  # bytes of a state that is read with the results


class Analysis:
    """Results by site and metric.

    `analysis["blocks.0.hook_resid_post"]` is a dict of results by metric; `analysis[site, metric]`
    is one result.

    Attributes:
        results: {site: {metric label: result}}, sites in depth order.
        sites: the sites, in depth order.
        run: the record of what made it: model, data, metrics, options, seed, versions.
    """

    def __init__(
        self,
        statistics: Statistics,
        results: Results,
        run: dict[str, Any],
        *,
        state: Callable[[], Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.results = results
        self.run = run
        self._statistics = statistics
        self._state = state  # of the statistics, which are empty until it is needed

    @property
    def statistics(self) -> Statistics:
        """What the results were computed from. A large state is read when this is first asked for.

        Raises:
            StateError: for a state that is damaged, or of something else.
        """
        if self._state is not None:
            self._statistics.load_state(self._state())
            self._state = None
        return self._statistics

    @property
    def sites(self) -> list[Site]:
        """The sites, in depth order."""
        return list(self._statistics.sites.values())

    @property
    def metrics(self) -> list[str]:
        """Labels of the metrics."""
        return [m.label for m in self._statistics.metrics]

    @property
    def metric_objects(self) -> list[Metric]:
        """The metrics with their settings."""
        return list(self._statistics.metrics)

    def n_samples(self, site: str) -> int:
        """Samples that the results at a site are of.

        Raises:
            SiteError: for a site that is not in this analysis.
        """
        known: Mapping[str, int] = self.run.get("samples", {})
        if site in known and site in self.results:
            return int(known[site])
        self[site]
        return self.statistics.n_samples(site)

    def __getitem__(self, key: str | tuple[str, str]) -> Any:
        site, metric = key if isinstance(key, tuple) else (key, None)
        if site not in self.results:
            raise SiteError(f"no site {site!r} in this analysis{near(site, self.results)}")
        if metric is None:
            return self.results[site]
        if metric not in self.results[site]:
            raise SiteError(
                f"no metric {metric!r} in this analysis; it has {', '.join(self.metrics)}"
            )
        return self.results[site][metric]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        from polycode_plugins.runs.notebook import card

        return card(self, drawn=False).text()

    def _repr_html_(self) -> str:
        from polycode_plugins.runs.notebook import card

        return card(self, drawn=True).html()

    @property
    def warnings(self) -> tuple[SiteWarning, ...]:
        """What keeps results from meaning what they seem to: each sentence once, with its sites.

        `str` of one begins with the sites. `result.warnings` has those of one result.
        """
        return (*all_warnings(self.metrics, self.results), *_of_run(self.run, len(self.sites)))

    def to_dataframe(self) -> pd.DataFrame:
        """One row per site, and a column `metric.field` for every scalar result.

        `depth` is the place of the site among those of this analysis, from 0.
        """
        import pandas as pd

        rows = []
        for depth, site in enumerate(self.sites):
            row: dict[str, Any] = {"site": site.name, "depth": depth}
            for label, result in self.results[site.name].items():
                row |= {f"{label}.{k}": v for k, v in result.scalars().items()}
            rows.append(row)
        return pd.DataFrame(rows)

    def headline(self, metric: str | None = None, *, width: int = 80) -> pd.DataFrame:
        """What says most of one metric: few columns, rounded, so that they print side by side.

        Args:
            metric: its label; the first one unless given.
            width: characters that the printed table may take; what says least goes first.

        Raises:
            SiteError: for a metric that is not in this analysis.
        """
        from polycode_plugins.runs.notebook import headline

        return headline(self, self.metrics[0] if metric is None else metric, width)

    def plot(self, metric: str | None = None) -> Figure:
        """One figure with the plot of every metric at every site, or of one metric."""
        import matplotlib.pyplot as plt

        labels = [metric] if metric is not None else self.metrics
        columns = min(4, len(self))
        rows = -(-len(self) // columns)
        figure, axes = plt.subplots(
            rows * len(labels),
            columns,
            figsize=(3.4 * columns, 2.8 * rows * len(labels)),
            squeeze=False,
            layout="constrained",
        )
        for panel in axes.flat:
            panel.set_visible(False)
        for block, label in enumerate(labels):
            for i, site in enumerate(self):
                panel = axes[block * rows + i // columns][i % columns]
                panel.set_visible(True)
                self[site, label].plot(panel)
                panel.set_title(site, fontsize=8)
        return figure

    # -- files -----------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write run.json, state.safetensors and results.parquet; each appears whole or not at all.

        Raises:
            StateError: where the folder cannot be written or holds something else.
        """
        target = given(folder)
        with storage.locked(target):
            return self.write(target)

    def write(self, folder: Path) -> Path:
        """`save`, for a caller who holds the folder's lock."""
        return storage.save(folder, self.statistics.saved_state(), self.table(), self.run)

    @classmethod
    def load(cls, folder: str | Path, *, state: bool = True) -> Analysis:
        """Read what `save` wrote. The model and the data are not needed.

        Args:
            folder: of the run.
            state: also read what merging needs, where that is small; otherwise when it is asked
                for.

        Raises:
            StateError: for a folder that is missing, incomplete, damaged, or of a newer format.
        """
        run, saved, table = storage.load(given(folder))
        statistics = statistics_of(run)
        kinds = {m.label: m.result for m in statistics.metrics}
        results: Results = {site: {} for site in statistics.sites}
        try:
            for site, label, fields in table:
                results[site][label] = kinds[label].from_dict(fields)
                guards.check_fields(results[site][label])
        except Exception as error:  # somebody's metric, and a file of somebody's
            what = f"the results in {str(folder)!r} do not fit its run.json"
            raise StateError(guards.made_from(what, error)) from error
        if any(found.keys() != kinds.keys() for found in results.values()):
            raise StateError(f"the results in {str(folder)!r} are not those of every metric")
        analysis = cls(statistics, results, run, state=lambda: saved)
        if state and saved.nbytes <= _AT_ONCE:
            analysis.statistics  # noqa: B018 - a damaged one is refused here
        return analysis

    def merge(self, other: Analysis) -> Analysis:
        """The analysis of both parts' data together; neither part is changed.

        Raises:
            StateError: unless both are disjoint parts of one analysis: same model, sites, metrics
                options and data, and no row of the data in both; and for what was attached or
                measured, whose rows nobody has numbered.
        """
        return Analysis.merged([self, other])

    @classmethod
    def merged(cls, parts: Iterable[Analysis | str | Path]) -> Analysis:
        """The analysis of the data of all parts together, read one after the other.

        However many there are, memory holds the statistics of all so far and of one part, and the
        results are computed once.

        Args:
            parts: analyses, or the folders of runs; none of them is changed.

        Raises:
            DataError: for no part at all.
            StateError: as for `merge`.
        """
        total: Statistics | None = None
        runs: list[dict[str, Any]] = []
        rows = Rows()
        left_out: dict[str, dict[str, int]] = {}  # from the records, also of parts that were loaded
        for part in parts:
            run, statistics = _part_of(part)
            _require_parts(runs[0] if runs else run, run, alone=not runs)
            rows = rows.joined(Rows.from_json(run["rows"]))
            if total is None:
                total = statistics_of(run)
            total.merge(statistics)
            total.left_out = left_out
            total.leave_out(run.get("left_out") or {})
            left_out = total.left_out
            runs.append(run)
        if total is None:
            raise DataError("there is nothing to merge; name the parts")
        if len(runs) == 1:
            return finish(total, runs[0])
        return finish(
            total, {**runs[0], **_added(runs), "rows": rows.to_json(), "left_out": left_out}
        )

    def report(self, path: str | Path) -> Path:
        """Write the analysis as one self-contained HTML file.

        Raises:
            PluginError: when the report extra is not installed.
        """
        from polycode_plugins.report import write

        return write(self, given(path))

    def table(self) -> list[tuple[str, int, str, dict[str, Any], dict[str, Any]]]:
        """(site, depth, metric, scalars, all fields) of each result, for a file."""
        return [
            (site.name, depth, label, result.scalars(), result.to_dict())
            for depth, site in enumerate(self.sites)
            for label, result in self.results[site.name].items()
        ]


def finish(
    statistics: Statistics, run: dict[str, Any], progress: Any = None, room: Room | None = None
) -> Analysis:
    """Compute every metric at every site, those that allow it on all cores.

    Args:
        statistics: what was gathered.
        run: the record.
        progress: a bar.
        room: the memory there is; what the machine has unless given.

    Raises:
        PolycodeError: where a result is undefined, with the sites; of many the first ones.
    """
    statistics.require_finite()
    results: Results = {}
    failures: list[tuple[str, PolycodeError]] = []

    def computed(site: str, metric: Metric) -> Result | PolycodeError:
        try:
            return statistics.compute(site, metric)
        except PolycodeError as error:
            return error

    def beside(site: str) -> dict[str, Result | PolycodeError]:
        """What may be computed while other sites are; one after the other within a site, since
        these share statistics."""
        return {m.label: computed(site, m) for m in statistics.metrics if m.side_by_side}

    together: dict[str, Mapping[str, Result] | None] = {}  # by metric, then by site
    failed: set[str] = set()  # labels of metrics that failed for all sites at once
    room = Room() if room is None else room
    workers = room.workers(statistics)
    with side_by_side(workers, room.helpers(workers)) as pool:
        begun = {site: pool.submit(beside, site) for site in statistics.sites}
        for metric in statistics.metrics:
            try:
                together[metric.label] = statistics.compute_all(metric)
            except PolycodeError as error:
                failures.append(("", error))
                failed.add(metric.label)
        for site in statistics.sites:
            results[site] = {}
            made = begun[site].result()
            for metric in statistics.metrics:
                if metric.label in failed:
                    continue
                known = together[metric.label] or {}
                found = made.get(metric.label) or known.get(site) or computed(site, metric)
                if isinstance(found, PolycodeError):
                    failures.append((site, found))
                else:
                    results[site][metric.label] = found
                if progress is not None:
                    progress.update()
            room.ceiling.keep()
    if failures:
        (_, first), *others = failures
        more = list(dict.fromkeys(site for site, _ in others if site))
        at = f" (and more at {listed(more)})" if more else ""
        raise type(first)(f"{first}{at}") from first
    run = run | {
        "sites": [dataclasses.asdict(s) for s in statistics.sites.values()],
        "samples": {site: statistics.n_samples(site) for site in statistics.sites},
    }
    return Analysis(statistics, results, run)


def _part_of(part: Analysis | str | Path) -> tuple[dict[str, Any], Statistics]:
    """The record and the statistics of a part; those of a folder without its results."""
    if isinstance(part, Analysis):
        return part.run, part.statistics
    run, state = storage.load_parts(given(part))
    statistics = statistics_of(run)
    statistics.load_state(state)
    statistics.batches = int(run.get("batches", 0))
    return run, statistics


def _require_parts(first: Mapping[str, Any], run: Mapping[str, Any], *, alone: bool) -> None:
    """Raise StateError unless a run is proven to be a part of the same analysis as the first."""
    if not alone:
        same_analysis(first, run)
    if not run["rows"]["count"]:
        raise StateError(
            f"what was {run['data']} has rows without numbers in the data, so nothing "
            "tells whether a row is in both parts; gather all in one pass of attach, merge "
            "shards of pc.analyze, or merge TorchMetric objects"
        )
    if not alone and run.get("content") is None:
        raise StateError(
            "nothing proves that both parts are of the same data: their records hold no digest "
            "of its content (made by an older version, or read by an adapter that adds nothing "
            "to DataOptions.content); run the parts again, or analyse all of the data in one run"
        )


def _added(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the records of the parts say of the work, for all together."""
    commands = [c for run in runs for c in run.get("commands", [run.get("command")]) if c]
    return {
        "batches": sum(run.get("batches", 0) for run in runs),
        "command": None,  # several, below
        "commands": list(dict.fromkeys(commands)),
        "complete": True,
        "parts": sum(run.get("parts", 1) for run in runs),
        "seconds": round(sum(run.get("seconds", 0.0) for run in runs), 1),
        "shards": sorted(shard for run in runs for shard in run.get("shards", [])),
    }


def _of_run(run: Mapping[str, Any], total: int) -> Iterator[SiteWarning]:
    """What the choice of sites and of rows makes of the results."""
    narrow: Mapping[str, str] = run.get("narrow") or {}
    if narrow:
        why = next(iter(narrow.values()))
        text = f"left out of the default choice, since there can be no result ({why})"
        yield SiteWarning("sites", tuple(narrow), text, len(set(narrow.values())) > 1, total + 1)
    special: Mapping[str, int] = run.get("special") or {}
    if special:
        most = max(special.values())
        text = f"{most} of the rows are padding or special tokens, which no mask leaves out"
        differs = len(set(special.values())) > 1
        yield SiteWarning("rows", tuple(special), text, differs, total)


def statistics_of(run: dict[str, Any]) -> Statistics:
    """Empty statistics for the sites and metrics a run's record names."""
    try:
        sites = [Site(**{**s, "axes": tuple(s["axes"])}) for s in run["sites"]]
        metrics = rebuild_metrics(run["metrics"])
    except (KeyError, TypeError) as error:
        raise StateError(f"run.json lacks or misstates {error}") from error
    for site in sites:
        guards.check_fields(site)
        if not set(site.axes) <= AXES:
            raise StateError(f"run.json misstates the axes of site {site.name!r}: {site.axes}")
    if len({s.name for s in sites}) < len(sites) or len({m.label for m in metrics}) < len(metrics):
        raise StateError("run.json names a site or a metric twice")
    return Statistics(metrics, sites)


def record(statistics: Statistics, **fields: Any) -> dict[str, Any]:
    """The parts of a run's record that the statistics know, and `fields`."""
    return {
        "sites": [dataclasses.asdict(s) for s in statistics.sites.values()],
        "metrics": [describe_metric(m) for m in statistics.metrics],
        **fields,
    }
