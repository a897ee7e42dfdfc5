"""Streams of activations on the CPU and on a simulated GPU."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from simulated_device import OnDevice, SimulatedDevice

from polycode_plugins.activations import Activations, Site
from polycode_plugins.metrics.base import Metric
from polycode_plugins.runs.gathering import Statistics

ROWS, POSITIONS, WIDTH = 8, 16, 24
SITES = ("one", "two")


def batches(
    count: int,
    *,
    first: int = 0,
    masked: bool = True,
    positions: bool = True,
    numbered: bool = True,
    packed: bool = False,
    bad: dict[tuple[int, str], float] | None = None,
) -> list[list[tuple[str, Activations]]]:
    """Batches of both sites, whose rows rule the spectrum here and there.

    Args:
        first: number of the first batch.
        bad: {(batch, site): value} of one activation that counts.
    """
    made = []
    for number in range(first, first + count):
        draw = torch.Generator().manual_seed(number)
        shape = (ROWS, POSITIONS) if positions else (ROWS,)
        mask = torch.rand(shape, generator=draw) > 0.2 if masked else None
        if mask is not None:
            mask[0] = True
        rows = torch.arange(number * ROWS, (number + 1) * ROWS) if numbered else None
        documents = torch.arange(number * ROWS, (number + 1) * ROWS) // 2
        if packed:
            documents = documents[:, None] * 4 + torch.arange(POSITIONS) // 5
        shared: dict[object, object] = {}
        of = []
        for site in SITES:
            values = torch.randn(*shape, WIDTH, generator=draw) * torch.logspace(0, -1, WIDTH)
            if number % 7 == 3:
                values[1] *= 30
            if (number, site) in (bad or {}):
                values[0, ..., 2] = bad[number, site]
            axes = ("batch", "position", "feature") if positions else ("batch", "feature")
            made_of = Activations(
                values, axes, mask, rows, documents if numbered else None, None, shared
            )
            of.append((site, made_of))
        made.append(of)
    return made


def fresh(metrics: Sequence[Metric]) -> Statistics:
    """Statistics of both sites."""
    return Statistics(metrics, [Site(name) for name in SITES])


def feed(
    statistics: Statistics,
    stream: Sequence[Sequence[tuple[str, Activations]]],
    device: SimulatedDevice | None = None,
) -> Statistics:
    """The statistics with the stream, whose values are on the device where one is given."""
    with device or nullcontext():
        for batch in stream:
            statistics.begin(None)
            for site, read in batch:
                statistics.receive(site, read if device is None else on_device(read))
            statistics.batches += 1
    return statistics


def on_device(read: Activations) -> Activations:
    """The same activations with their values on the device, the rest where an adapter has it."""
    return Activations(
        OnDevice(read.values), read.axes, read.mask, read.rows, read.documents, None, read.shared
    )
