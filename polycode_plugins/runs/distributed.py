"""One analysis over several processes: `torchrun -m polycode_plugins analyze ...`.

Every process streams its shard of the rows, then accumulators travel up a binomial tree and are
merged exactly. Each process sends its state once, so a covariance costs width^2 per process and
log2(processes) steps, whatever the number of samples. Only torch.distributed is used.

A process that fails stays until all have heard of it, and all raise the same sentence: were it to
leave, the others would wait for its state for ever. Tensors travel as bytes: NCCL knows few types.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from polycode_plugins import errors
from polycode_plugins.activations import Site
from polycode_plugins.errors import PolycodeError, StateError
from polycode_plugins.files import guards
from polycode_plugins.files.provenance import Rows
from polycode_plugins.runs.gathering import Statistics


def launched() -> bool:
    """Whether this process is one of several started by torchrun (or a launcher like it)."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextmanager
def group() -> Iterator[tuple[int, int]]:
    """(rank, world size) of a process group that is open inside, of one open already if any."""
    if dist.is_initialized():
        yield dist.get_rank(), dist.get_world_size()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        dist.destroy_process_group()


def agree(error: PolycodeError | None) -> None:
    """Let all processes fail when one has; every one of them has to call this.

    Raises:
        PolycodeError: this process's own error, or that of the first one that failed.
    """
    world = dist.get_world_size()
    failed = torch.tensor([world if error is None else dist.get_rank()], device=_device())
    dist.all_reduce(failed, op=dist.ReduceOp.MIN)
    first = int(failed)
    if first == world:
        return
    said = _broadcast_json([type(error).__name__, str(error)], first)
    if error is not None:
        raise error
    kind = getattr(errors, said[0], StateError)  # a subclass from elsewhere is not known here
    raise kind(said[1])


def gathered(value: Any) -> list[Any]:
    """The JSON value of each process, in order; every one of them has to call this."""
    return [_broadcast_json(value, source) for source in range(dist.get_world_size())]


def merge_to_first(statistics: Statistics | None, rows: Rows) -> tuple[Statistics, Rows]:
    """Merge everything into rank 0; other ranks get their own part, or what they merged, back.

    Args:
        statistics: this process's part; None when its shard held no row.
        rows: the rows it has seen.

    Raises:
        StateError: in all processes, where one has no row or the parts do not belong together.
        PolycodeError: in all processes, what a merge raised in one.
    """
    own = _present(statistics)
    failure: PolycodeError | None = None
    rank, world = dist.get_rank(), dist.get_world_size()
    step = 1
    while step < world:
        if rank % (2 * step) == step:
            failure = _send(own, rows, rank - step, failure)
            break
        if rank + step < world and rank % (2 * step) == 0:
            header, state = _receive(rank + step)
            if header is not None and failure is None:
                try:
                    rows = _merge(own, rows, header, state)
                except Exception as error:  # somebody's accumulator may raise anything
                    failure = _ours("the parts of the processes cannot be merged", error)
        step *= 2
    agree(failure)
    return own, rows


def share(statistics: Statistics | None, rows: Rows) -> Rows:
    """Give every process what rank 0 has: the statistics in place, the rows returned.

    Raises:
        StateError: in all processes, where one has no statistics to put them in.
        PolycodeError: in all processes, where what rank 0 has cannot be written or read.
    """
    own = _present(statistics)
    first = dist.get_rank() == 0
    failure: PolycodeError | None = None
    header: dict[str, Any] = {}
    state: dict[str, Tensor] = {}
    if first:
        try:
            header, state = _described(own, rows)
        except Exception as error:
            failure = _ours("the state cannot be given to the other processes", error)
    agree(failure)
    header = _broadcast_json(header, 0)
    for name, dtype, shape in header["tensors"]:
        content = _bytes(state[name]) if first else _room(dtype, shape)
        if content.numel():
            dist.broadcast(content, 0)
        if not first:
            state[name] = _tensor(content, dtype, shape)
    if not first:
        try:
            own.load_state(state)
            own.batches = header["batches"]
            own.left_out = {}
            own.leave_out(header["left_out"])
            for site in header["sites"]:  # one of which this process had no row is known by now
                own.sites[site["name"]] = Site(**{**site, "axes": tuple(site["axes"])})
        except PolycodeError as error:
            failure = error
    agree(failure)
    return Rows.from_json(header["rows"])


def _present(statistics: Statistics | None) -> Statistics:
    missing = None
    if statistics is None:
        missing = StateError(
            f"rank {dist.get_rank()} of {dist.get_world_size()} processes had no row of the data; "
            "use fewer processes"
        )
    agree(missing)
    assert statistics is not None
    return statistics


def _ours(what: str, error: Exception) -> PolycodeError:
    """The error as one that every process can raise."""
    return error if isinstance(error, PolycodeError) else StateError(guards.made_from(what, error))


def _described(statistics: Statistics, rows: Rows) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a process has, as JSON and as tensors."""
    state = statistics.state()
    tensors = [[n, str(t.dtype).removeprefix("torch."), list(t.shape)] for n, t in state.items()]
    header = {
        "rows": rows.to_json(),
        "sites": [asdict(site) for site in statistics.sites.values()],
        "batches": statistics.batches,
        "left_out": statistics.left_out,
        "tensors": tensors,
    }
    return header, state


def _send(
    statistics: Statistics, rows: Rows, to: int, failure: PolycodeError | None
) -> PolycodeError | None:
    """Send what this process has, or nothing after a failure; return the failure, if any."""
    header: dict[str, Any] | None = None
    state: dict[str, Tensor] = {}
    if failure is None:
        try:
            header, state = _described(statistics, rows)
        except Exception as error:
            failure = _ours("the state cannot be sent to another process", error)
    text = _text(header)
    dist.send(torch.tensor([text.numel()], device=_device()), to)
    dist.send(text, to)
    for tensor in state.values():
        if tensor.numel():
            dist.send(_bytes(tensor), to)
    return failure


def _receive(source: int) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """What another process sent: None where it failed."""
    size = torch.zeros(1, dtype=torch.int64, device=_device())
    dist.recv(size, source)
    text = torch.empty(int(size), dtype=torch.uint8, device=_device())
    dist.recv(text, source)
    header = json.loads(bytes(text.cpu().numpy().data))
    state: dict[str, Tensor] = {}
    for name, dtype, shape in header["tensors"] if header is not None else []:
        content = _room(dtype, shape)
        if content.numel():
            dist.recv(content, source)
        state[name] = _tensor(content, dtype, shape)
    return header, state


def _merge(
    statistics: Statistics, rows: Rows, header: Mapping[str, Any], state: Mapping[str, Tensor]
) -> Rows:
    """Take in what another process sent; return the rows of both."""
    sites = [Site(**{**site, "axes": tuple(site["axes"])}) for site in header["sites"]]
    if list(statistics.sites) != [site.name for site in sites]:
        raise StateError("the processes do not see the same sites; give all of them one command")
    joined = rows.joined(Rows.from_json(header["rows"]))
    other = Statistics(statistics.metrics, sites)
    other.load_state(state)
    other.batches = header["batches"]
    other.leave_out(header["left_out"])
    statistics.merge(other)
    return joined


def _broadcast_json(value: Any, source: int) -> Any:
    """The JSON value that `source` has."""
    own = dist.get_rank() == source
    text = _text(value) if own else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor([text.numel()], device=_device())
    dist.broadcast(size, source)
    if not own:
        text = torch.empty(int(size), dtype=torch.uint8, device=_device())
    dist.broadcast(text, source)
    return json.loads(bytes(text.cpu().numpy().data))


def _text(value: Any) -> Tensor:
    content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    return content.to(_device())


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8).to(_device())


def _room(dtype: str, shape: list[int]) -> Tensor:
    """Where the bytes of a tensor come in."""
    size = math.prod(shape) * getattr(torch, dtype).itemsize
    return torch.empty(size, dtype=torch.uint8, device=_device())


def _tensor(content: Tensor, dtype: str, shape: list[int]) -> Tensor:
    return content.cpu().view(getattr(torch, dtype)).reshape(shape)


def _device() -> torch.device:
    backend = dist.get_backend()
    return (
        torch.device("cuda", torch.cuda.current_device())
        if backend == "nccl"
        else torch.device("cpu")
    )
