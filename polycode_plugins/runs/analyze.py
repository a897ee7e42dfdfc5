"""`analyze`: stream data through a model once and compute every metric at every site."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from polycode_plugins.adapters.base import Adapter
from polycode_plugins.adapters.patterns import Sites, check_patterns
from polycode_plugins.adapters.undisturbed import modules_of
from polycode_plugins.data_options import DataOptions
from polycode_plugins.devices import on_host
from polycode_plugins.errors import DataError
from polycode_plugins.files.paths import given
from polycode_plugins.files.storage import admit
from polycode_plugins.files.weights import identified
from polycode_plugins.loading import load
from polycode_plugins.metrics.base import Metric
from polycode_plugins.metrics.names import make_metrics
from polycode_plugins.runs import distributed
from polycode_plugins.runs.analysis import Analysis
from polycode_plugins.runs.course import Asked, alone, together
from polycode_plugins.runs.memory import bytes_of
from polycode_plugins.runs.stopping import Stopping, check_target

_LOG = logging.getLogger(__name__)


@on_host()
def analyze(
    model: Any = None,
    data: Any = None,
    metrics: Iterable[str | Metric] | str | Metric = ("spectrum",),
    sites: Sites = None,
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
    memory: int | str | None = None,
    target_error: float | None = None,
    progress: bool | None = None,
    command: str | None = None,
    **options: Any,
) -> Analysis:
    """Compute metrics over the sites of a model on data, in one streaming pass.

    Args:
        model: a live model, a name, a folder, an adapter, or None for the embedded tiny GPT-2.
        data: what the adapter reads, however it is held: texts, images, tensors; data sets of
            Hugging Face and torch and their columns, data frames, lists, generators, loaders; None
            is its embedded default.
        metrics: names or metric objects.
        sites: names or globs (`*` within a dotted part, `**` across, `!glob` leaves out), "all", or
            a function of a name; the adapter's default when None. Of the default, and of "all",
            sites that are too narrow for one of the metrics are left out, and named in
            `analysis.warnings`.
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
            all of them return the whole analysis, and the first one writes it, at the end. Each
            keeps what it has done in `out`, so that any number of processes resumes it.
        memory: what this process may take in all ("8GiB", or bytes), or on a GPU what it may take
            there; by default what the machine has. Statistics that will not fit go through the data
            in several passes, some of the sites in each, where `out` is given and `data` can be
            read again; otherwise they are refused after the first batch.
        target_error: end the stream when the exponent of `spectrum` is known to within this at
            every site (half the width of its interval). There are a few looks at the data, each at
            twice the samples of the one before, and the intervals of the exponents are wide enough
            to hold with 95% for all of them; `run["stopping"]` says what was reached and how much
            was saved. For one process and one pass over the data.
        progress: show progress on standard error; by default when that is a terminal.
        command: recorded with the run.
        options: passed to the adapter.

    Raises:
        PolycodeError: one of its kinds, for everything that cannot be done; nothing is left
            half-written.
    """
    made = make_metrics(metrics)
    check_patterns(sites)
    data_options = DataOptions(
        batch_size=batch_size,
        context=context,
        limit=limit,
        shard=shard,
        include_special=include_special,
        text_field=text_field,
        seed=seed,
    )
    folder = given(out) if out is not None else None
    limit_bytes = None if memory is None else bytes_of(memory)
    if folder is not None and not distributed.launched():  # there the first process looks
        admit(folder, fresh=fresh)
    _LOG.info("loading %s", "the embedded model" if model is None else _named(model))
    source = load(model, adapter, **options)
    if source.gathers:
        _check_engine(source, train_mode=train_mode, shard=shard)
    if train_mode:
        _enter_train_mode(source.model, ours=model is None or isinstance(model, str | Path))
    for metric in made:
        metric.admit(source.model, train_mode=train_mode)
    _LOG.info("loaded with the adapter %s", source.name)
    several = distributed.launched() and shard == (0, 1)
    part = "a process of several" if several else None if shard == (0, 1) else "a shard"
    part = "an engine's worker" if source.gathers else part
    exponents = check_target(target_error, made, parts=part)
    described: dict[str, Any] = {
        "model": identified(source.describe(), source.model),
        "data": _describe_data(data),
        "seed": seed,
        "options": data_options.lasting() | {"train_mode": train_mode},
    }
    stopping = None
    if target_error is not None:
        stopping = Stopping(float(target_error), exponents)
        described["options"] |= {"target_error": float(target_error)}
    asked = Asked(
        source,
        made,
        sites,
        described,
        data,
        data_options,
        train_mode,
        progress,
        command,
        stopping,
    )
    if several:
        with distributed.group() as (rank, world):
            return together(asked, rank, world, folder, fresh=fresh, memory=limit_bytes)
    return alone(asked, folder, fresh=fresh, memory=limit_bytes)


def _named(model: Any) -> str:
    return str(model) if isinstance(model, str | Path) else f"a {type(model).__name__}"


def _check_engine(source: Adapter, *, train_mode: bool, shard: tuple[int, int]) -> None:
    if train_mode:
        raise DataError(
            f"the engine of the adapter {source.name!r} runs its model in evaluation mode; leave "
            "train_mode out, or read the folder with adapter='transformers'"
        )
    if distributed.launched() and shard == (0, 1):
        raise DataError(
            f"the engine of the adapter {source.name!r} starts workers of its own, and torchrun's "
            "processes would get in their way; run one process (with tensor_parallel=), or shards "
            "(--shard 0/4) that are merged"
        )


def _enter_train_mode(model: Any, *, ours: bool) -> None:
    modules = modules_of(model)
    if ours and isinstance(model, nn.Module):
        model.train()
    if modules and not any(module.training for module in modules):
        raise DataError(
            "train_mode=True runs the model in the mode it is in, and all of it is in evaluation "
            "mode, without dropout; call model.train() first, or leave train_mode out"
        )


def _describe_data(data: Any) -> str:
    if data is None:
        return "embedded"
    if isinstance(data, str | Path):
        return str(data)
    shape = getattr(data, "shape", None)
    return f"{type(data).__name__}{tuple(shape) if shape is not None else ''}"
