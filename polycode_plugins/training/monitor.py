"""`Monitor`: what a training loop calls after each of its steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from polycode_plugins.adapters.base import Adapter
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import DataError, PluginError, PolycodeError, StateError
from polycode_plugins.files import storage
from polycode_plugins.files.paths import given
from polycode_plugins.loading import load
from polycode_plugins.metrics.base import Metric
from polycode_plugins.metrics.names import make_metrics
from polycode_plugins.runs.analysis import Analysis
from polycode_plugins.training.history import HISTORY, History, Point
from polycode_plugins.training.measurement import EvaluationBatch, Kept, Measured, sharded
from polycode_plugins.training.pace import Pace

logger = logging.getLogger("polycode_plugins.training")

#: The first measurement as a run of its own, and the page of curves, in the monitor's folder.
FIRST, PAGE = "first", "training.html"
_GIVE_UP = 3  # measurements that fail one after the other

Numbers = dict[str, float]


class Monitor:
    """Measures a network while it is trained: the same rows every so many steps.

    A measurement runs the rows in evaluation mode, without gradients, and leaves the model, its
    modes and buffers and all random states as they were: losses with and without it are bit-equal.
    What goes wrong in it is logged by the logger "polycode_plugins.training" and stands in the
    history; nothing is raised into the training. Only the constructor raises, before training.

    It takes at most `share` of the time of training: every measurement is timed, and where one more
    would take all of them above the share, steps are left out, which the log says. The first one,
    to which CKA is taken, is always made.

    Args:
        model: the live model that is trained (or an adapter of it).
        data: what the adapter reads: texts, a tensor, a list of batches as the model takes them;
            its embedded default when None. It is read once, up to `limit` rows, and kept.
        sites: names or globs; the adapter's default when None.
        metrics: names or objects. With "cka" among them each site is compared with what it was at
            the first measurement ("cka.to_first"), on the samples that the metric keeps.
        every: optimiser steps between measurements.
        share: most seconds of measurements for each second of training; `math.inf` measures every
            `every` steps, whatever it costs.
        out: folder for `history.jsonl`, which grows with each measurement, the page
            `training.html` at the end, and `first/`, the first measurement as a run that `pc.cka`
            and `pc.diff` read. A training that is resumed goes on with what is there.
        log: called with (numbers, step) after each measurement.
        adapter: the adapter's name; by default the one that claims the model.
        seed: of everything that draws.
        batch_size: as for `pc.analyze`.
        context: as for `pc.analyze`.
        limit: as for `pc.analyze`.
        include_special: as for `pc.analyze`.
        options: passed to the adapter (`tokenizer=`, `axes=`, ...).

    Raises:
        PolycodeError: for what no measurement could read.
        StateError: where `out` holds the history of other rows, sites or metrics.

    Example:
        monitor = Monitor(model, held_out, ["blocks.*"], every=200, out="runs/curves")
        monitor.begin()
        for step, batch in enumerate(loader, 1):
            ...
            numbers = monitor.after(step)  # {} where nothing was measured
        monitor.end(step)
    """

    def __init__(
        self,
        model: Any,
        data: Any = None,
        sites: Sequence[str] | str | None = None,
        metrics: Iterable[str | Metric] | str | Metric = ("spectrum", "cka"),
        *,
        every: int = 500,
        share: float = 0.05,
        out: str | Path | None = None,
        log: Callable[[Numbers, int], None] | None = None,
        adapter: str | type[Adapter] | None = None,
        seed: int = 0,
        batch_size: int = 16,
        context: int = 64,
        limit: int | None = 128,
        include_special: bool = False,
        **options: Any,
    ) -> None:
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise DataError(f"every is a number of steps, at least 1, not {every!r}")
        if not isinstance(share, int | float) or not share > 0:
            raise DataError(f"share is a part of the time of training, above 0, not {share!r}")
        made = make_metrics(metrics)
        source = load(model, adapter, **options)
        for metric in made:
            metric.admit(source.model, train_mode=False)
        reading = DataOptions(
            batch_size=batch_size,
            context=context,
            limit=limit,
            include_special=include_special,
            seed=seed,
        )
        self.pace = Pace(every, share)
        self._log = log
        self._batch = EvaluationBatch(source, data, made, sites, reading)
        self._folder = None if out is None else given(out)
        self._first: Kept | None = None
        self._began_at = 0
        self._failures = 0
        self._off = ""  # why nothing more is measured
        self._told: set[str] = set()
        self.history = self._read_history()

    @property
    def left_off(self) -> str:
        """Why nothing more is measured, "" while that goes on."""
        return self._off

    @property
    def sites(self) -> list[str]:
        """Names of the sites, in depth order."""
        return [site.name for site in self._batch.sites]

    # -- what a loop calls -----------------------------------------------------------------------

    def begin(self, step: int = 0) -> Numbers:
        """Training begins, or goes on, after this many steps: the first measurement."""
        return self._guarded(lambda: self._begin(step))

    def after(self, step: int) -> Numbers:
        """After this many optimiser steps: the numbers, {} where nothing was measured."""
        return self._guarded(lambda: self._after(step))

    def end(self, step: int) -> Numbers:
        """Training ends after this many steps: a last measurement, where there is time for it."""
        return self._guarded(lambda: self._end(step))

    def _begin(self, step: int) -> Numbers:
        self._off = sharded(self._batch.adapter.model)
        self.pace.begin(step)
        self._began_at = step
        if self._off:
            logger.warning("nothing is measured: %s", self._off)
            return {}
        gone = self.history.go_back(step, self._folder)
        if gone:
            logger.warning(
                "training goes on from step %d: %d measurements of later steps are moved to "
                "superseded.jsonl",
                step,
                len(gone),
            )
        if self._folder is not None:
            self.history.begin_file(self._folder)
        if not self.history.points:
            self._first = None
        elif self._first is None and self._likeness_lost():
            self._tell("the first measurement was not saved, so CKA is taken to the one at step "
                       f"{step}")  # fmt: skip
        if self.history.points and self.history.points[-1].step == step:
            return {}
        return self._measure(step)

    def _after(self, step: int) -> Numbers:
        if self._off or (self.history.points and self.history.points[-1].step >= step):
            return {}
        if not self.pace.due(step):
            self._tell(self.pace.put_off(step))
            return {}
        return self._measure(step)

    def _end(self, step: int) -> Numbers:
        found: Numbers = {}
        at = self.history.points[-1].step if self.history.points else None
        if not self._off and at != step:
            if self.pace.affordable():
                found = self._measure(step)
            else:
                self._tell(f"step {step}, the last, is not measured: the time for it is used up")
        used = self.pace.used
        if used is not None:
            logger.info(
                "%d measurements took %.3g s, %.2g%% of the time of training",
                len(self.history),
                self.pace.spent,
                100 * used,
            )
            if used > self.pace.share and not self._off:
                self._tell(
                    f"measurements took {used:.0%} of the time of training, more than the share "
                    f"of {self.pace.share:.0%}: the run was shorter than its first measurement "
                    "needs"
                )
        self._write_page()
        return found

    def _guarded(self, act: Callable[[], Numbers]) -> Numbers:
        """Nothing of ours is raised into somebody's training."""
        try:
            return act()
        except Exception as error:  # also ours: the training goes on
            self._tell(f"nothing was measured: {type(error).__name__}: {error}")
            return {}

    # -- one measurement -------------------------------------------------------------------------

    def _measure(self, step: int) -> Numbers:
        _settle()
        began = time.monotonic()
        first = self._first is None
        try:
            measured = self._batch.measured(self._first)
        except Exception as error:  # the model may raise anything, out of memory for example
            seconds = time.monotonic() - began
            self.pace.took(seconds)
            self._failed(step, seconds, f"{type(error).__name__}: {error}")
            return {}
        _settle()
        usual = time.monotonic() - began
        self._failures = 0
        point = Point(step, round(usual, 4), measured.numbers, measured.problems)
        for site, why in point.problems.items():
            self._tell(why if site in why else f"site {site!r}: {why}")
        if first:
            self._keep_first(measured, step)
        self.history.append(point, self._folder)
        self.pace.took(time.monotonic() - began, usual)
        numbers = point.flat() | {"polycode/seconds": point.seconds}
        if self.pace.used is not None and step > self._began_at:
            numbers["polycode/share_of_time"] = self.pace.used
        if self._log is not None:
            logging_began = time.monotonic()
            self._log(numbers, step)
            self.pace.took(time.monotonic() - logging_began, usual)
        return numbers

    def _failed(self, step: int, seconds: float, why: str) -> None:
        self._failures += 1
        self.history.append(Point(step, round(seconds, 4), {}, {"": why}), self._folder)
        self._tell(f"nothing was measured at step {step}: {why}")
        if self._failures >= _GIVE_UP:
            self._off = f"{_GIVE_UP} measurements in a row have failed, the last with {why}"
            self._tell(f"nothing more is measured: {self._off}")

    def _keep_first(self, measured: Measured, step: int) -> None:
        self._first = measured.kept
        if self._folder is None:
            return
        try:
            self._batch.analysis(measured.statistics, step).save(self._folder / FIRST)
        except PolycodeError as error:
            self._tell(
                f"the first measurement is not saved as a run ({error}); CKA is taken to it until "
                "this process ends"
            )

    def _read_history(self) -> History:
        record = self._batch.record()
        if self._folder is None or not (self._folder / HISTORY).is_file():
            return History(record)
        found = History.load(self._folder)
        for name in ("metrics", "sites", "rows", "seed"):
            if found.record.get(name) != record[name]:
                what = "rows of the evaluation batch" if name == "rows" else name
                raise StateError(
                    f"{str(self._folder)!r} holds the history of a training that was measured "
                    f"otherwise ({what} differ); give another folder as out="
                )
        if (self._folder / FIRST / storage.RUN).is_file() and found.points:
            first = Analysis.load(self._folder / FIRST)
            self._first = self._batch.kept(first.statistics)
        return found

    def _likeness_lost(self) -> bool:
        return any(name.endswith(".to_first") for name in self.history.quantities())

    def _write_page(self) -> None:
        if self._folder is None or not self.history.points:
            return
        try:
            self.history.report(self._folder / PAGE)
        except PluginError as error:
            self._tell(f"no page of curves is written: {error}")

    def _tell(self, sentence: str) -> None:
        """Log a sentence, once."""
        if sentence and sentence not in self._told:
            self._told.add(sentence)
            logger.warning("%s", sentence)


def _settle() -> None:
    """Wait for what a GPU has been given, so that our time is ours alone."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
