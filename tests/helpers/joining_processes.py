"""One of two processes that join what they have, well and badly.

Prints, as JSON, for each case what came of it: what was shared, or the error's type and message.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from polycode_plugins.activations import Site
from polycode_plugins.errors import DataError
from polycode_plugins.files.provenance import Rows
from polycode_plugins.metrics.base import Accumulator, Metric, Result
from polycode_plugins.runs import distributed
from polycode_plugins.runs.gathering import Statistics

NCCL = (
    *(torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
)
TYPES = (
    *NCCL,
    *(torch.int16, torch.uint16, torch.uint32, torch.uint64),
)


class Shelf(Accumulator):
    """Holds tensors of every type and shape; merging takes the other's beside its own."""

    name = "shelf"

    def __init__(self) -> None:
        self.held: dict[str, Tensor] = {}
        self.fault = ""

    def options(self) -> dict[str, Any]:
        return {}

    @property
    def n_samples(self) -> int:
        return len(self.held)

    def update(self, activations: Any) -> None: ...

    def merge(self, other: Shelf) -> None:
        if self.fault == "merge":
            raise DataError("these shelves are of different width")
        if self.fault == "merge, of another type":
            raise ZeroDivisionError("no shelf at all")
        self.held = {**self.held, **other.held}

    def state(self) -> dict[str, Tensor]:
        if self.fault == "state":
            raise RuntimeError("out of memory")
        return dict(self.held)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if self.fault == "load":
            raise DataError("this shelf is full")
        self.held = dict(state)


@dataclass(frozen=True)
class Shelves(Metric):
    name = "shelves"
    result = Result

    def accumulators(self) -> Mapping[str, Accumulator]:
        return {"shelf": Shelf()}

    def compute(self, accumulators: Mapping[str, Accumulator], site: Site) -> Result:
        return Result()


def tensors(rank: int) -> dict[str, Tensor]:
    """Of each type: a matrix whose memory is in another order, a scalar and nothing at all."""
    made = {}
    for dtype in TYPES:
        values = torch.tensor([[0, 1, 2], [3, 100, 127]], dtype=torch.int64) - 50 * rank
        values = values.abs().to(dtype)
        if dtype.is_signed:
            values = (values.double() * -1.0).to(dtype)
        name = f"{rank}.{str(dtype).removeprefix('torch.')}"
        made |= {f"{name}.matrix": values.T, f"{name}.scalar": values[1, 1]}
        made[f"{name}.empty"] = torch.empty(0, 3, dtype=dtype)
    made[f"{rank}.int64.large"] = torch.tensor([2**63 - 1 - rank, -(2**63) + rank])
    fine = [1 + 2**-52, 5e-324, 1e308 / (1 + rank)]
    made[f"{rank}.float64.fine"] = torch.tensor(fine, dtype=torch.float64)
    return made


def statistics(rank: int, site: str = "a", fault: str = "") -> Statistics:
    found = Statistics([Shelves()], [Site(site)])
    (shelf,) = found.accumulators(site, "shelves").values()
    assert isinstance(shelf, Shelf)
    shelf.held, shelf.fault = tensors(rank), fault
    found.batches = 1 + rank
    return found


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[k].dtype == t.dtype and found[k].shape == t.shape and torch.equal(found[k], t)
        for k, t in expected.items()
    )


def join(own: Statistics | None, rows: Rows) -> Any:
    own, rows = distributed.merge_to_first(own, rows)
    rows = distributed.share(own, rows)
    found = {name.rpartition("/")[2]: t for name, t in own.state().items()}
    return [same(found, tensors(0) | tensors(1)), own.batches, rows.count]


def cases(rank: int) -> dict[str, Callable[[], Any]]:
    rows = Rows(((rank, 2, 10),))
    return {
        "well": lambda: join(statistics(rank), rows),
        "first without rows": lambda: join(statistics(0) if rank else None, rows),
        "last without rows": lambda: join(None if rank else statistics(0), rows),
        "shared without rows": lambda: distributed.share(None if rank else statistics(0), rows),
        "other sites": lambda: join(statistics(rank, "ab"[rank]), rows),
        "a row in both": lambda: join(statistics(rank), Rows(((0, 1, 5),))),
        "merge": lambda: join(statistics(rank, fault="" if rank else "merge"), rows),
        "merge, of another type": lambda: join(
            statistics(rank, fault="" if rank else "merge, of another type"), rows
        ),
        "state of the last": lambda: join(statistics(rank, fault="state" if rank else ""), rows),
        "state of the first": lambda: join(statistics(rank, fault="" if rank else "state"), rows),
        "load": lambda: join(statistics(rank, fault="load" if rank else ""), rows),
        "one fails before": lambda: distributed.agree(DataError("a NaN") if rank else None),
        "none fails before": lambda: distributed.agree(None),
        "well again": lambda: join(statistics(rank), rows),
    }


def program(rank: int) -> None:
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=30))
    travelled = set()
    for name in ("send", "recv", "broadcast", "all_reduce"):
        original = getattr(dist, name)

        def noted(tensor: Tensor, *given: Any, call: Any = original, **named: Any) -> Any:
            travelled.add(tensor.dtype)
            return call(tensor, *given, **named)

        setattr(dist, name, noted)
    found = {}
    for name, case in cases(rank).items():
        try:
            found[name] = case()
        except Exception as error:
            found[name] = [type(error).__name__, str(error)]
    found["unknown to NCCL"] = sorted(str(t) for t in travelled - set(NCCL))
    print(json.dumps(found))
    dist.destroy_process_group()
