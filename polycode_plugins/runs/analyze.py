"""`analyze`: stream data through a model once and compute every metric at every site."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from polycode_plugins.adapters.base import Adapter, Batch
from polycode_plugins.adapters.undisturbed import modules_of, undisturbed
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import DataError, PolycodeError, StateError
from polycode_plugins.files import storage
from polycode_plugins.files.provenance import FORMAT, Rows, environment, fingerprint, same_analysis
from polycode_plugins.loading import load
from polycode_plugins.metrics.base import Metric
from polycode_plugins.runs import distributed
from polycode_plugins.runs.analysis import Analysis, finish, record
from polycode_plugins.runs.gathering import Statistics, make_metrics

CHECKPOINT_SECONDS = 60.0


def analyze(
    model: Any = None,
    data: Any = None,
    metrics: Iterable[str | Metric] | str | Metric = ("spectrum",),
    sites: Sequence[str] | str | None = None,
    *,
    adapter: str | type[Adapter] | None = None,
    seed: int = 0,
    batch_size: int = 16,
    context: int = 64,
    limit: int | None = None,
    shard: tuple[int, int] = (0, 1),
    include_special: bool = False,
    text_field: str = "text",
    train_mode: bool = False,
    out: str | Path | None = None,
    fresh: bool = False,
    progress: bool | None = None,
    command: str | None = None,
    **options: Any,
) -> Analysis:
    """Compute metrics over the sites of a model on data, in one streaming pass.

    Args:
        model: a live model, a name, a folder, an adapter, or None for the embedded tiny GPT-2.
        data: what the adapter reads (texts, images, tensors, a DataLoader); None is its embedded
            default.
        metrics: names or metric objects.
        sites: names or globs (`*` within a dotted part, `**` across, `!glob` leaves out); the
            adapter's default when None.
        adapter: the adapter's name; by default the one that claims the model.
        seed: of everything that draws.
        batch_size: rows per forward pass; changes the speed, not the result.
        context: tokens per window of text.
        limit: read at most this many rows (windows, images).
        shard: (index, count) of this part of the data; parts are joined with `Analysis.merge`.
        include_special: let special tokens and the prepended one into the statistics.
        text_field: field of JSON lines or a data set that holds the text.
        train_mode: run a live model in the mode it is in, and one that is loaded here in train
            mode (dropout as trained), not in evaluation mode.
        out: folder for run.json, state.safetensors and results.parquet. An interrupted run in it is
            resumed by the same call; a finished one is refused unless `fresh`.
        fresh: replace what is in `out`.

            Under torchrun the rows are sharded over the processes (unless `shard` says otherwise),
            all of them return the whole analysis, and the first one writes it, at the end.
        progress: show progress on standard error; by default when that is a terminal.
        command: recorded with the run.
        options: passed to the adapter.

    Raises:
        PolycodeError: one of its kinds, for everything that cannot be done; nothing is left
            half-written.
    """
    made = make_metrics(metrics)
    source = load(model, adapter, **options)
    if train_mode:
        _enter_train_mode(source.model, ours=model is None or isinstance(model, str | Path))
    for metric in made:
        metric.admit(source.model, train_mode=train_mode)
    data_options = DataOptions(
        batch_size=batch_size,
        context=context,
        limit=limit,
        shard=shard,
        include_special=include_special,
        text_field=text_field,
        seed=seed,
    )
    described = {
        "model": {**source.describe(), "fingerprint": fingerprint(source.model)},
        "data": _describe_data(data),
        "seed": seed,
        "options": data_options.lasting() | {"train_mode": train_mode},
    }
    folder = Path(out) if out is not None else None
    if distributed.launched() and shard == (0, 1):
        with distributed.group() as (rank, world):
            ours = replace(data_options, shard=(rank, world))
            run = _Run(source, made, sites, described, None, fresh)
            target = folder if rank == 0 else None
            return _together(run, data, ours, train_mode, target, fresh, progress, command)
    with storage.locked(folder) if folder is not None else nullcontext():
        run = _Run(source, made, sites, described, folder, fresh)
        try:
            run.stream(data, data_options, train_mode, progress)
            return run.finish(command, data_options.shard, progress)
        except BaseException:
            run.leave_nothing()
            raise


def _enter_train_mode(model: Any, *, ours: bool) -> None:
    modules = modules_of(model)
    if ours and isinstance(model, nn.Module):
        model.train()
    if modules and not any(module.training for module in modules):
        raise DataError(
            "train_mode=True runs the model in the mode it is in, and all of it is in evaluation "
            "mode, without dropout; call model.train() first, or leave train_mode out"
        )


def _together(
    run: _Run,
    data: Any,
    options: DataOptions,
    train_mode: bool,
    folder: Path | None,
    fresh: bool,
    progress: bool | None,
    command: str | None,
) -> Analysis:
    """This process's part of a run of several; all return the whole, the first one writes it."""
    failure: PolycodeError | None = None
    try:
        if folder is not None:
            storage.prepare(folder)
            if not fresh:
                storage.refuse_finished(folder)
        run.stream(data, options, train_mode, progress if options.shard[0] == 0 else False)
    except PolycodeError as error:
        failure = error
    distributed.agree(failure)
    run.statistics, run.rows = distributed.merge_to_first(run.statistics, run.rows)
    run.rows = distributed.share(run.statistics, run.rows)
    run.folder = folder
    return run.finish(command, (0, 1), progress if options.shard[0] == 0 else False)


class _Run:
    """One pass over the data, with its checkpoints."""

    def __init__(
        self,
        adapter: Adapter,
        metrics: list[Metric],
        patterns: Sequence[str] | str | None,
        described: dict[str, Any],
        folder: Path | None,
        fresh: bool,
    ) -> None:
        self.adapter = adapter
        self.metrics = metrics
        self.patterns = patterns
        self.described = described
        self.folder = folder
        self.rows = Rows()
        self.statistics: Statistics | None = None
        self.skip = 0
        self._saved_at = time.monotonic()
        self._resumable = False
        self._earlier: dict[str, Any] | None = None
        if folder is not None and not fresh and (folder / storage.RUN).is_file():
            self._earlier = storage.load_run(folder)
            storage.refuse_finished(folder)
            self._resumable = True

    def stream(
        self, data: Any, options: DataOptions, train_mode: bool, progress: bool | None
    ) -> None:
        """Run all batches of this part of the data."""
        with undisturbed(self.adapter.model, train_mode=train_mode):
            for batch in _shown(self.adapter.batches(data, options), progress):
                self.take(batch)

    def take(self, batch: Batch) -> None:
        """Run one batch, unless an earlier, interrupted run has."""
        if self.statistics is None:
            self._begin(batch)
        assert self.statistics is not None
        if self.skip:
            self.skip -= len(batch)
            if self.skip < 0:
                raise StateError("the interrupted run used other batches; start again with --fresh")
            return
        sites = list(self.statistics.sites.values())
        self.statistics.begin(batch.labels, _floats(batch))
        self.adapter.run(batch, sites, self.statistics.receive, seed=self.described["seed"])
        self.statistics.check_sites()
        self.statistics.batches += 1
        self.rows = self.rows.extended(batch.rows, batch.inputs)
        if self.folder is not None and time.monotonic() - self._saved_at > CHECKPOINT_SECONDS:
            self.checkpoint()

    def _begin(self, batch: Batch) -> None:
        sites = self.adapter.resolve(self.patterns, batch)
        self.statistics = Statistics(self.metrics, sites)
        if self._earlier is None or self.folder is None:
            return
        try:
            same_analysis(self._record(), self._earlier)
        except StateError as error:
            raise StateError(
                f"{str(self.folder)!r} holds an interrupted run, and it is not this one "
                f"({str(error).partition(': ')[2]}); repeat its command, give another folder, or "
                "replace it with fresh=True (--fresh)"
            ) from error
        self.statistics.load_state(storage.load_state(self.folder, self._earlier))
        self.statistics.batches = int(self._earlier["batches"])
        self.rows = Rows.from_json(self._earlier["rows"])
        self.skip = self.rows.count

    def _record(self) -> dict[str, Any]:
        assert self.statistics is not None
        return record(
            self.statistics,
            **self.described,
            format=FORMAT,
            rows=self.rows.to_json(),
            batches=self.statistics.batches,
            complete=False,
        )

    def checkpoint(self) -> None:
        """Save the state so that the same call goes on from here."""
        assert self.folder is not None
        assert self.statistics is not None
        storage.save(self.folder, self.statistics.state(), [], self._record())
        self._resumable = True
        self._saved_at = time.monotonic()

    def finish(
        self, command: str | None, shard: tuple[int, int], progress: bool | None
    ) -> Analysis:
        """Compute the results and, with a folder, save them."""
        if self.statistics is None:
            raise DataError("the data holds no row to analyse; check the path, limit and shard")
        run = self._record() | environment()
        run |= {"complete": True, "shards": [list(shard)], "command": command}
        total = len(self.statistics.sites) * len(self.metrics)
        with _bar(total, "computing", "result", progress) as bar:
            analysis = finish(self.statistics, run, bar)
        if self.folder is not None:
            analysis.save(self.folder)
        return analysis

    def leave_nothing(self) -> None:
        """Remove the empty folder of a run that failed before it had anything to keep."""
        if self.folder is None or self._resumable:
            return
        try:
            left = [p for p in self.folder.iterdir() if p.name != storage.LOCK]
            if not left:
                (self.folder / storage.LOCK).unlink(missing_ok=True)
                self.folder.rmdir()
        except OSError:
            return  # it is gone, or somebody put something there: either way nothing of ours


def _shown(batches: Iterable[Batch], progress: bool | None) -> Iterator[Batch]:
    with _bar(None, "streaming", "row", progress) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


@contextmanager
def _bar(total: int | None, what: str, unit: str, progress: bool | None) -> Iterator[Any]:
    from tqdm import tqdm

    show = sys.stderr.isatty() if progress is None else progress
    with tqdm(total=total, desc=what, unit=unit, disable=not show, file=sys.stderr) as bar:
        yield bar


def _floats(batch: Batch) -> Tensor | None:
    """The one tensor of floats [batch, ..] that the model is called with; None for others."""
    inputs = batch.inputs
    if isinstance(inputs, tuple | list) and len(inputs) == 1:
        inputs = inputs[0]
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        return None
    return inputs if inputs.dim() > 1 and len(inputs) == len(batch) else None


def _describe_data(data: Any) -> str:
    if data is None:
        return "embedded"
    if isinstance(data, str | Path):
        return str(data)
    shape = getattr(data, "shape", None)
    return f"{type(data).__name__}{tuple(shape) if shape is not None else ''}"
