"""How a run goes: alone in one or several passes, or together with other processes."""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polycode_plugins.adapters.base import Adapter
from polycode_plugins.adapters.patterns import Sites
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import DataError, PolycodeError, StateError
from polycode_plugins.files import guards, storage
from polycode_plugins.files.content import ContentDigest
from polycode_plugins.files.provenance import FORMAT, Rows, same_analysis
from polycode_plugins.files.tensors import Lazy
from polycode_plugins.metrics.base import Metric
from polycode_plugins.metrics.names import describe_metric
from polycode_plugins.runs import distributed, parts
from polycode_plugins.runs.analysis import Analysis, statistics_of
from polycode_plugins.runs.memory import Room, TooLarge, release, separable, size
from polycode_plugins.runs.parts import Parts
from polycode_plugins.runs.passes import _Run, other_rows
from polycode_plugins.runs.stopping import Stopping

PLAN = "plan.json"


@dataclass(frozen=True)
class Asked:
    """What a call of `analyze` asks for.

    Attributes:
        adapter: of the model.
        metrics: the metrics.
        patterns: which sites.
        described: the model, data, seed and options, for the record.
        data: what the adapter reads.
        options: how.
        train_mode: see `analyze`.
        progress: see `analyze`.
        command: see `analyze`.
        stopping: when the stream may end before the data does; None for never.
    """

    adapter: Adapter
    metrics: list[Metric]
    patterns: Sites
    described: dict[str, Any]
    data: Any
    options: DataOptions
    train_mode: bool
    progress: bool | None
    command: str | None
    stopping: Stopping | None = None

    def run(self, own: Parts, room: Room | None, patterns: Sequence[str] | None = None) -> _Run:
        """One pass for these sites, or all that are asked for."""
        return _Run(
            self.adapter,
            self.metrics,
            self.patterns if patterns is None else patterns,
            self.described,
            own,
            room=room,
            stopping=self.stopping,
            command=self.command,
        )

    def stream(self, run: _Run, shard: tuple[int, int] | None = None) -> None:
        """Run all of the data, or of a shard of it."""
        options = replace(self.options, content=ContentDigest())
        options = options if shard is None else replace(options, shard=shard)
        progress = self.progress if shard is None or shard[0] == 0 else False
        run.stream(self.data, options, self.train_mode, progress)

    def record(self) -> dict[str, Any]:
        """What the records of all parts have in common, the sites aside."""
        metrics = [describe_metric(metric) for metric in self.metrics]
        return {**self.described, "format": FORMAT, "metrics": metrics}


def alone(asked: Asked, folder: Path | None, *, fresh: bool, memory: int | None) -> Analysis:
    """A run of one process, in as many passes over the data as the memory takes."""
    try:
        with storage.locked(folder) if folder is not None else nullcontext():
            found = _open(folder, fresh=fresh)
            plan = _read_plan(asked, folder, memory)
            if plan is None:
                run = asked.run(Parts(folder, found), Room(memory))
                try:
                    asked.stream(run)
                except TooLarge as error:
                    plan = _plan(asked, run, folder, error, memory)
                    del run
                else:
                    analysis = run.finish([asked.options.shard], asked.progress)
                    if folder is not None:
                        analysis.write(folder)
                    run.parts.finished()
                    return analysis
            assert folder is not None
            return _in_passes(asked, folder, plan, memory)
    except BaseException:
        _leave_nothing(folder)
        raise


def _open(folder: Path | None, *, fresh: bool) -> list[parts.Part]:
    """The parts to go on from in a folder whose lock the caller holds."""
    if folder is None:
        return []
    if fresh:
        storage.discard(folder)
    else:
        storage.refuse_finished(folder)
    return parts.find(folder)


def _leave_nothing(folder: Path | None) -> None:
    """Remove the empty folder of a run that failed before it had anything to keep."""
    if folder is not None:
        with suppress(OSError):  # it holds something, or is gone
            folder.rmdir()


# -- several passes ------------------------------------------------------------------------------


def _plan(
    asked: Asked, run: _Run, folder: Path | None, error: TooLarge, memory: int | None
) -> list[list[str]]:
    """The sites of each pass, written down so that an interruption does not change them.

    Raises:
        TooLarge: where there can be no several passes.
        DataError: where the stream may end early, which each pass would do elsewhere.
    """
    again = not isinstance(asked.data, Iterator)
    begun = run.parts.seen.count > 0
    if asked.stopping is not None:
        raise DataError(
            f"target_error needs the statistics of all sites in one pass ({error}); give more "
            "memory, fewer sites, or leave target_error out"
        ) from error
    assert run.statistics is not None
    groups = error.groups if separable(run.statistics, error.groups) else []
    if folder is None or not groups or not again or begun:
        raise error
    plan = {
        "groups": groups,
        "narrow": run.statistics.narrow,
        "record": asked.record(),
        "memory": memory,
    }
    storage.write_text(folder / storage.GROUPS / PLAN, json.dumps(plan))
    return groups


def _read_plan(asked: Asked, folder: Path | None, memory: int | None) -> list[list[str]] | None:
    """The sites of each pass of an interrupted run; None for one that has no such plan.

    Raises:
        StateError: for the plan of another run, or one whose passes may take more memory.
    """
    if folder is None or not (folder / storage.GROUPS / PLAN).is_file():
        return None
    path = folder / storage.GROUPS / PLAN
    plan = guards.read_json(path)
    types = {"groups": list[list[str]], "narrow": dict[str, str], "record": dict[str, Any]}
    guards.require_types(plan, {**types, "memory": int | None}, path.name)
    try:
        same_analysis(asked.record(), plan["record"])
        planned = plan.get("memory")
        if memory is not None and (planned is None or memory < planned):
            before = "without a limit" if planned is None else f"for {size(planned)}"
            raise StateError(f"its passes were planned {before} and not for {size(memory)}")
        return [list(group) for group in plan["groups"]]
    except KeyError as error:
        raise StateError(f"{str(path)!r} is damaged: it lacks {error}") from error
    except StateError as error:
        raise StateError(
            f"{str(folder)!r} holds an interrupted run, and it is not this one ({error}); repeat "
            "its command, give another folder, or replace it with fresh=True (--fresh)"
        ) from error


def _in_passes(
    asked: Asked, folder: Path, groups: Sequence[Sequence[str]], memory: int | None
) -> Analysis:
    """One run into a folder of its own for each group of sites, then all of them in one."""
    homes = [folder / storage.GROUPS / str(number) for number in range(len(groups))]
    for home, names in zip(homes, groups, strict=True):
        _pass(asked, home, names, memory)
    analysis = _one(homes)
    plan = guards.read_json(folder / storage.GROUPS / PLAN)
    analysis.run["narrow"] = plan.get("narrow", {})
    storage.save(folder, _states(homes, analysis), analysis.table(), analysis.run)
    shutil.rmtree(folder / storage.GROUPS, ignore_errors=True)
    return Analysis.load(folder, state=False)


def _pass(asked: Asked, home: Path, names: Sequence[str], memory: int | None) -> None:
    """A pass for some of the sites, unless it is there; nothing of it stays in memory."""
    if (home / storage.RUN).is_file() and storage.load_run(home).get("complete"):
        return
    gc.collect()  # the error that said what fits holds the frames of its pass
    release()
    run = asked.run(Parts(home, parts.find(home)), Room(memory, divided=True), names)
    asked.stream(run)
    run.finish([asked.options.shard], asked.progress).write(home)


def _one(homes: Sequence[Path]) -> Analysis:
    """The results of all passes, without their states.

    Raises:
        StateError: where the passes have not seen the same rows.
    """
    made = [Analysis.load(home, state=False) for home in homes]
    first = made[0].run
    for other in made[1:]:
        if any(other.run.get(field) != first.get(field) for field in ("rows", "content")):
            raise StateError(
                "the passes over the data have not read the same (a loader that shuffles, or a "
                "file that was edited); give data that comes in the same order each time, or more "
                "memory, with fresh=True (--fresh)"
            )
    sites = sorted((s for one in made for s in one.run["sites"]), key=lambda s: int(s["depth"]))
    results = {name: found for one in made for name, found in one.results.items()}
    run = {
        **first,
        "commands": list(dict.fromkeys(c for one in made for c in one.run["commands"])),
        "left_out": {s: t for one in made for s, t in one.run.get("left_out", {}).items()},
        "passes": len(made),
        "samples": {name: n for one in made for name, n in one.run["samples"].items()},
        "seconds": round(sum(one.run["seconds"] for one in made), 1),
        "sites": sites,
    }
    statistics = statistics_of(run)
    return Analysis(statistics, {site: results[site] for site in statistics.sites}, run)


def _states(homes: Sequence[Path], analysis: Analysis) -> Mapping[str, Lazy]:
    """The state of all sites, read from those of the passes while it is written."""
    place = {site.name: index for index, site in enumerate(analysis.sites)}
    found = {}
    for home in homes:
        run = storage.load_run(home)
        for path, tensor in storage.load_state(home, run).lazy().items():
            index, _, rest = path.partition("/")
            found[f"{place[run['sites'][int(index)]['name']]}/{rest}"] = tensor
    return found


# -- several processes ---------------------------------------------------------------------------


def together(
    asked: Asked, rank: int, world: int, folder: Path | None, *, fresh: bool, memory: int | None
) -> Analysis:
    """This process's part of a run of several; all return the whole, the first one writes it."""
    with ExitStack() as stack:
        own = _share_parts(asked, rank, world, folder, fresh=fresh, stack=stack)
        run = asked.run(own, Room(memory, int(os.environ.get("LOCAL_WORLD_SIZE", world))))
        failure: PolycodeError | None = None
        try:
            asked.stream(run, (rank, world))
        except PolycodeError as error:
            failure = error
        distributed.agree(failure)
        _check_content(run)
        _check_reread(run)
        told = distributed.gathered([run.commands, run.seconds])
        run.statistics, run.rows = distributed.merge_to_first(run.statistics, run.rows)
        run.rows = distributed.share(run.statistics, run.rows)
        run.commands = list(dict.fromkeys(c for commands, _ in told for c in commands))
        shards = [(index, world) for index in range(world)]
        failure, analysis = None, None
        try:
            analysis = run.finish(shards, asked.progress if rank == 0 else False)
            analysis.run["seconds"] = round(sum(seconds for _, seconds in told), 1)
            if rank == 0 and run.parts.folder is not None:
                analysis.write(run.parts.folder)
        except PolycodeError as error:
            failure = error
        distributed.agree(failure)  # that the results are saved, so the parts are not needed
        run.parts.finished()
        assert analysis is not None
        return analysis


def _share_parts(
    asked: Asked, rank: int, world: int, folder: Path | None, *, fresh: bool, stack: ExitStack
) -> Parts:
    """The parts of this process; the first one holds the folder and finds them.

    Raises:
        PolycodeError: in all processes, where one of them cannot take part or asks for another
            analysis than the first.
    """
    failure: PolycodeError | None = None
    said: dict[str, Any] = {}
    if rank == 0:
        try:
            if folder is not None:
                stack.enter_context(storage.locked(folder))
            found = _open(folder, fresh=fresh)
            if folder is not None and (folder / storage.GROUPS / PLAN).is_file():
                raise StateError(
                    f"{str(folder)!r} holds an interrupted run in several passes of one process; "
                    "go on with one process, or replace it with fresh=True (--fresh)"
                )
            said = {
                "folder": None if folder is None else str(folder.absolute()),
                "parts": [part.name for part in found],
                "token": parts.token(),
                "record": asked.record(),
            }
        except PolycodeError as error:
            failure = error
    distributed.agree(failure)
    said = distributed.gathered(said)[0]
    home = None if said["folder"] is None else Path(said["folder"])
    own = Parts(None)
    try:
        same_analysis(said["record"], json.loads(json.dumps(asked.record())))
        found = [] if home is None else parts.read(home, said["parts"])
        own = Parts(home, found, rank, world, said["token"])
    except PolycodeError as error:
        failure = StateError(f"process {rank} is not of the same run as the first one: {error}")
    distributed.agree(failure)
    return own


def _check_content(run: _Run) -> None:
    """See that all processes have read the same data, each its own rows of it."""
    contents = distributed.gathered(run.content)
    other = next((rank for rank, one in enumerate(contents) if one != contents[0]), None)
    if other is not None or contents[0] is None:
        raise StateError(
            "nothing proves that the processes read the same data: the adapter adds nothing to "
            "DataOptions.content; analyse it in one process"
            if other is None
            else f"process {other} read other data than the first one (the digest of its content "
            "differs); give every process the same data in the same order, of which it takes its "
            "own rows (no DistributedSampler, no shuffling with a seed of its own)"
        )


def _check_reread(run: _Run) -> None:
    """See that the rows of an interrupted run came again, to whichever process."""
    again = [Rows.from_json(rows) for rows in distributed.gathered(run.reread.to_json())]
    seen = run.parts.seen
    digest = sum(rows.digest for rows in again) % 2**256
    if sum(rows.count for rows in again) != seen.count or digest != seen.digest:
        raise other_rows(run.parts.folder, seen.count)
