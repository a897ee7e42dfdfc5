"""One analysis over several processes: `torchrun -m polycode_plugins analyze ...`.

Every process streams its shard of the rows, then accumulators travel up a binomial tree and are
merged exactly. Each process sends its state once, so a covariance costs width^2 per process and
log2(processes) steps, whatever the number of samples. Only torch.distributed is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from polycode_plugins.errors import PolycodeError, StateError
from polycode_plugins.provenance import Rows
from polycode_plugins.statistics import Statistics

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
_DTYPES = _FLOATS + _INTEGERS


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
    """Let all processes fail when one has: the others would wait for its state for ever.

    Raises:
        PolycodeError: this process's own error, or that another one failed.
    """
    failed = torch.tensor([int(error is not None)], device=_device())
    dist.all_reduce(failed, op=dist.ReduceOp.MAX)
    if error is not None:
        raise error
    if int(failed):
        raise StateError("another process of this run failed; its message says why")


def merge_to_first(statistics: Statistics | None, rows: Rows) -> tuple[Statistics | None, Rows]:
    """Merge everything into rank 0; other ranks get their own part back.

    Args:
        statistics: this process's part; None when its shard held no row.
        rows: the rows it has seen.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    step = 1
    while step < world:
        if rank % (2 * step) == step:
            _send(statistics, rows, rank - step)
            return statistics, rows
        if rank + step < world and rank % (2 * step) == 0:
            statistics, rows = _receive(statistics, rows, rank + step)
        step *= 2
    return statistics, rows


def share(statistics: Statistics | None, rows: Rows) -> Rows:
    """Give every process what rank 0 has: the statistics in place, the rows returned."""
    if statistics is None:
        raise StateError("a process had no row of the data; use fewer processes")
    rank = dist.get_rank()
    state = statistics.state() if rank == 0 else {}
    text = _header(statistics, rows, state) if rank == 0 else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor([text.numel()], device=_device())
    dist.broadcast(size, 0)
    text = (
        text.to(_device())
        if rank == 0
        else torch.empty(int(size), dtype=torch.uint8, device=_device())
    )
    dist.broadcast(text, 0)
    header = json.loads(bytes(text.cpu().numpy().data))
    shared: dict[str, Tensor] = {}
    for name, dtype, shape in header["tensors"]:
        tensor = (
            state[name].contiguous().to(_device())
            if rank == 0
            else torch.empty(shape, dtype=_DTYPES[dtype], device=_device())
        )
        dist.broadcast(tensor, 0)
        shared[name] = tensor.cpu()
    if rank:
        statistics.load_state(shared)
        statistics.batches = header["batches"]
    return Rows.from_json(header["rows"])


def _header(statistics: Statistics | None, rows: Rows, state: dict[str, Tensor]) -> Tensor:
    header = {
        "rows": rows.to_json(),
        "sites": list(statistics.sites) if statistics is not None else [],
        "batches": statistics.batches if statistics is not None else 0,
        "tensors": [[name, _DTYPES.index(t.dtype), list(t.shape)] for name, t in state.items()],
    }
    return torch.frombuffer(bytearray(json.dumps(header).encode()), dtype=torch.uint8)


def _send(statistics: Statistics | None, rows: Rows, to: int) -> None:
    state = statistics.state() if statistics is not None else {}
    text = _header(statistics, rows, state)
    dist.send(torch.tensor([text.numel()], device=_device()), to)
    dist.send(text.to(_device()), to)
    for tensor in state.values():
        dist.send(tensor.contiguous().to(_device()), to)


def _receive(
    statistics: Statistics | None, rows: Rows, source: int
) -> tuple[Statistics | None, Rows]:
    size = torch.zeros(1, dtype=torch.int64, device=_device())
    dist.recv(size, source)
    text = torch.empty(int(size), dtype=torch.uint8, device=_device())
    dist.recv(text, source)
    header = json.loads(bytes(text.cpu().numpy().data))
    state: dict[str, Tensor] = {}
    for name, dtype, shape in header["tensors"]:
        tensor = torch.empty(shape, dtype=_DTYPES[dtype], device=_device())
        dist.recv(tensor, source)
        state[name] = tensor.cpu()
    rows = rows.joined(Rows.from_json(header["rows"]))
    if not state:
        return statistics, rows
    if statistics is None:
        raise StateError(
            "a process had no row of the data while a later one had; use fewer processes"
        )
    if list(statistics.sites) != header["sites"]:
        raise StateError("the processes do not see the same sites; give all of them one command")
    other = Statistics(statistics.metrics, list(statistics.sites.values()))
    other.load_state(state)
    other.batches = header["batches"]
    statistics.merge(other)
    statistics.batches += other.batches
    return statistics, rows


def _device() -> torch.device:
    backend = dist.get_backend()
    return (
        torch.device("cuda", torch.cuda.current_device())
        if backend == "nccl"
        else torch.device("cpu")
    )
