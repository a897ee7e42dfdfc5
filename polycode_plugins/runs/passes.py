"""One pass over the data: batch by batch into the statistics, with checkpoints, to the results."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence, Sized
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from polycode_plugins.adapters.base import Adapter, Batch
from polycode_plugins.adapters.patterns import Sites, by_default
from polycode_plugins.adapters.undisturbed import undisturbed
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.files import storage
from polycode_plugins.files.provenance import FORMAT, Rows, environment, same_analysis
from polycode_plugins.metrics.base import Metric
from polycode_plugins.progress import bar
from polycode_plugins.runs.analysis import Analysis, finish, record, statistics_of
from polycode_plugins.runs.elsewhere import Elsewhere, gathered_elsewhere
from polycode_plugins.runs.gathering import Statistics
from polycode_plugins.runs.memory import Room
from polycode_plugins.runs.parts import Part, Parts, place
from polycode_plugins.runs.stopping import Stopping, samples_of

_LOG = logging.getLogger(__name__)
CHECKPOINT_SECONDS = 60.0
_SHARE = 9  # a checkpoint takes at most one part in ten of the time


class _Run:
    """One pass over the data, with its checkpoints.

    Args:
        adapter: of the model.
        metrics: what is asked.
        patterns: which sites, see `Adapter.resolve`.
        described: the model, data, seed and options, for the record.
        parts: what an interrupted run has done, and where this one keeps what it does.
        room: for the state; None plans nothing.
        stopping: when the stream may end before the data does; None for never.
        command: recorded with the run.
    """

    def __init__(
        self,
        adapter: Adapter,
        metrics: list[Metric],
        patterns: Sites,
        described: dict[str, Any],
        parts: Parts,
        *,
        room: Room | None = None,
        stopping: Stopping | None = None,
        command: str | None = None,
    ) -> None:
        self.stopping = stopping
        self.adapter = adapter
        self.metrics = metrics
        self.patterns = patterns
        self.described = described
        self.parts = parts
        self.rows = Rows()
        self.statistics: Statistics | None = None
        self.reread = Rows()  # of those in the parts, the ones that have come again
        self.commands = [*_commands(parts.own), *([] if command is None else [command])]
        self.content: str | None = None
        self._room = room
        self._plan = Room() if room is None else room
        self._began = time.monotonic()
        self._before = sum(float(part.run.get("seconds", 0.0)) for part in parts.own)
        self._saved_at = self._began
        self._took = 0.0  # seconds that the last checkpoint took
        self._elsewhere: Elsewhere | None = None  # where an engine's workers gather
        self._stack = ExitStack()  # open while data is streamed
        self._kept = False  # whether the parts have been replaced by one of this process

    @property
    def seconds(self) -> float:
        """That the run has taken, those before an interruption included."""
        return round(self._before + time.monotonic() - self._began, 1)

    def stream(
        self, data: Any, options: DataOptions, train_mode: bool, progress: bool | None
    ) -> None:
        """Run all batches of this part of the data."""
        with undisturbed(self.adapter.model, train_mode=train_mode), self._stack:
            total, most = total_rows(data, options)
            with bar("streaming", "row", total, progress, most=most) as shown:
                batches = iter(self.adapter.batches(data, options))
                for batch in batches:
                    self.take(batch)
                    shown.update(len(batch))
                    if self.stopping is not None and self.stopping.reached:
                        self.stopping.count_rest(batches, self.seconds)
                        break
            self._fetch()
        _LOG.info("streamed %d rows, %.1f s since the beginning", self.rows.count, self.seconds)
        self._elsewhere = None
        content = options.content
        self.content = content.hexdigest() if content is not None and content.count else None
        if self.parts.pure:
            self._require(self.reread.count >= self._own().count)

    def take(self, batch: Batch) -> None:
        """Run one batch, less the rows that an earlier, interrupted run has."""
        if self.statistics is None:
            self._begin(batch)
        assert self.statistics is not None
        if self.parts.seen.count:
            known = self.parts.seen.holds(batch.rows)
            if bool(known.any()):
                whole = bool(known.all())
                self._again(batch if whole else chosen(batch, known))
                if whole:
                    return
                batch = chosen(batch, ~known)
        before = samples_of(self.statistics)
        if self._elsewhere is not None:
            self.adapter.forward(batch)
            self._elsewhere.check()
        else:
            sites = list(self.statistics.sites.values())
            self.statistics.begin(batch.labels, _floats(batch))
            receive = self._plan.ceiling.between(self.statistics.receive)
            live = self.adapter.run(batch, sites, receive, seed=self.described["seed"])
            self.statistics.leave_out(getattr(live, "left_out", {}))
            if by_default(self.patterns):
                self.statistics.drop_refused()
            self.statistics.check_sites()
        self.statistics.batches += 1
        self.rows = extended(self.rows, batch)
        if self._room is not None and self._elsewhere is None:
            self._room.require(self.statistics, self.described["options"].get("limit"))
            self._room = None  # asked once: what a site holds is known from its first batch
        self._plan.ceiling.keep()
        if self.stopping is not None and self.stopping.after(self.statistics, before):
            return
        self._checkpoint_when_due()

    def _again(self, batch: Batch) -> None:
        """Rows that are in the state already, which they have to be for the state to be of use."""
        self.reread = extended(self.reread, batch)
        own = self._own()
        if self.parts.pure and self.reread.count == own.count:
            self._require(self.reread.digest == own.digest)

    def _own(self) -> Rows:
        return self.parts.seen if self.parts.world == 1 else joined(self.parts.own)

    def _require(self, same: bool) -> None:
        if not same:
            raise other_rows(self.parts.folder, self._own().count)

    def _begin(self, batch: Batch) -> None:
        sites = self.adapter.resolve(self.patterns, batch)
        _LOG.info("reading %d sites, from %s to %s", len(sites), sites[0].name, sites[-1].name)
        self.statistics = Statistics(self.metrics, sites)
        if by_default(self.patterns):
            for part in self.parts.own:
                self.statistics.drop(part.run.get("narrow") or {})
        for part in self.parts.own:
            self._resume(part)
        if self.adapter.gathers:
            self._elsewhere = self._stack.enter_context(
                gathered_elsewhere(
                    self.adapter,
                    self.metrics,
                    list(self.statistics.sites.values()),
                    before=self.statistics,
                    rows=self.described["options"].get("limit"),
                    memory=None if self._room is None else self._room.limit,
                )
            )

    def _fetch(self) -> None:
        """Take in what an engine's workers have gathered."""
        if self._elsewhere is not None:
            assert self.statistics is not None
            batches, self.statistics = self.statistics.batches, self._elsewhere.fetch()
            self.statistics.batches = batches

    def _resume(self, part: Part) -> None:
        assert self.statistics is not None
        folder = self.parts.folder
        assert folder is not None
        try:
            same_analysis(self._record(), {**part.run, "content": None})
        except StateError as error:
            reason = str(error).removeprefix("these are parts of different analyses: ")
            raise StateError(
                f"{str(folder)!r} holds an interrupted run, and it is not this one "
                f"({reason}); repeat its command, give another folder, or "
                "replace it with fresh=True (--fresh)"
            ) from error
        saved = statistics_of(part.run)
        saved.load_state(storage.load_state(place(folder, part.name), part.run))
        saved.batches = int(part.run["batches"])
        saved.narrow = dict(part.run.get("narrow") or {})
        saved.leave_out(part.run.get("left_out") or {})
        if part is self.parts.own[0]:
            self.statistics = saved  # as it was: a merge may fold its rows at other places
        else:
            self.statistics.merge(saved)
        self.rows = self.rows.joined(part.rows)

    def _record(self) -> dict[str, Any]:
        assert self.statistics is not None
        return record(
            self.statistics,
            **self.described,
            format=FORMAT,
            rows=self.rows.to_json(),
            batches=self.statistics.batches,
            complete=False,
            narrow=dict(self.statistics.narrow),
            left_out=self.statistics.left_out,
        )

    def _checkpoint_when_due(self) -> None:
        pause = CHECKPOINT_SECONDS and max(CHECKPOINT_SECONDS, _SHARE * self._took)
        if self.parts.home is not None and time.monotonic() - self._saved_at > pause:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Save the state so that the same call goes on from here."""
        home = self.parts.home
        assert home is not None
        began = time.monotonic()
        self._fetch()
        assert self.statistics is not None
        run = self._record() | self.parts.record()
        run |= {"commands": self.commands, "seconds": self.seconds}
        storage.save(home, self.statistics.saved_state(), [], run)
        if not self._kept:
            self.parts.superseded()
            self._kept = True
        self._saved_at = time.monotonic()
        self._took = self._saved_at - began

    def finish(self, shards: Sequence[tuple[int, int]], progress: bool | None) -> Analysis:
        """Compute the results and, with a folder, save them."""
        if self.statistics is None:
            raise DataError("the data holds no row to analyse; check the path, limit and shard")
        run = self._record() | environment()
        run |= {
            "complete": True,
            "content": self.content,
            "shards": [list(shard) for shard in shards],
            "command": self.commands[-1] if self.commands else None,
            "commands": self.commands,
        }
        total = len(self.statistics.sites) * len(self.metrics)
        with bar("computing", "result", total, progress) as shown:
            analysis = finish(self.statistics, run, shown, self._plan)
        analysis.run["seconds"] = self.seconds
        _LOG.info("computed %d results, %.1f s since the beginning", total, self.seconds)
        return analysis if self.stopping is None else self.stopping.applied(analysis)


def _commands(parts: Sequence[Part]) -> list[str]:
    found = [command for part in parts for command in part.run.get("commands", ())]
    return list(dict.fromkeys(found))


def joined(parts: Sequence[Part]) -> Rows:
    """The rows of all parts."""
    rows = Rows()
    for part in parts:
        rows = rows.joined(part.rows)
    return rows


def other_rows(folder: Any, count: int) -> StateError:
    """What is raised where the rows of an interrupted run do not come again."""
    return StateError(
        f"{str(folder)!r} holds an interrupted run, and the {count} rows that it has seen are not "
        "those that come now (other data, a file that was edited, or a loader that shuffles); give "
        "the same data in the same order, give another folder, or replace it with fresh=True "
        "(--fresh)"
    )


def extended(rows: Rows, batch: Batch) -> Rows:
    """The rows with those of a batch, and what the statistics know of them."""
    return rows.extended(
        batch.rows,
        batch.inputs,
        mask=batch.mask,
        documents=batch.documents,
        labels=batch.labels,
    )


def chosen(batch: Batch, keep: Tensor) -> Batch:
    """The rows of a batch for which `keep`, bool [batch], is True.

    Raises:
        StateError: where the rows are not along the first axis of what the model is given.
    """
    count = len(batch)

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.dim() and value.shape[0] == count:
                return value[keep.to(value.device)]
            if count in value.shape:
                raise StateError(
                    "the interrupted run was of another number of processes, and the rows of "
                    f"this data cannot be told apart in a tensor {tuple(value.shape)}; go on with "
                    "as many processes as before, or replace it with fresh=True (--fresh)"
                )
            return value
        if isinstance(value, Mapping):
            return {key: cut(one) for key, one in value.items()}
        if isinstance(value, list) and len(value) == count:
            return [one for one, kept in zip(value, keep.tolist(), strict=True) if kept]
        return tuple(cut(one) for one in value) if isinstance(value, tuple) else value

    return replace(
        batch,
        inputs=cut(batch.inputs),
        rows=batch.rows[keep],
        documents=cut(batch.documents),
        mask=cut(batch.mask),
        labels=cut(batch.labels),
        repeats=cut(batch.repeats),
    )


def _floats(batch: Batch) -> Tensor | None:
    """The one tensor of floats [batch, ..] that the model is called with; None for others."""
    inputs = batch.inputs
    if isinstance(inputs, tuple | list) and len(inputs) == 1:
        inputs = inputs[0]
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        return None
    return inputs if inputs.dim() > 1 and len(inputs) == len(batch) else None


def total_rows(data: Any, options: DataOptions) -> tuple[int | None, bool]:
    """(rows that this shard of the data has, whether there may be fewer); None where not known.

    A limit is the most that may come; tensors, arrays and loaders of a known length say how many.
    """
    known = _length(data)
    limit = options.limit
    index, count = options.shard
    if known is None:
        return (None, False) if limit is None else (len(range(index, limit, count)), True)
    whole = known if limit is None else min(known, limit)
    return len(range(index, whole, count)), False


def _length(data: Any) -> int | None:
    if isinstance(data, DataLoader):
        data = data.dataset
        return len(data) if isinstance(data, Sized) else None
    if isinstance(data, Tensor) or hasattr(data, "__array__"):
        shape: Sequence[int] = getattr(data, "shape", ())
        return int(shape[0]) if len(shape) > 0 else None
    return None
