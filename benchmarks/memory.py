"""What statistics of wide layers take: a stack of layers, every one of them a site, under a limit.

    python benchmarks/memory.py --width 6400 --sites 48 --memory 24GiB --out FOLDER

The layers scale and bend their inputs, so that the model itself takes nothing. Prints what the plan
says, the passes over the data, and the most memory that the process has held.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.runs import memory, passes


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 2, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.scale * x)


class Drawn:
    """Batches of normal rows, the same ones each time they are read."""

    def __init__(self, rows: int, width: int, size: int) -> None:
        self.rows, self.width, self.size = rows, width, size

    def __iter__(self):  # type: ignore[no-untyped-def]
        draw = torch.Generator().manual_seed(0)
        for start in range(0, self.rows, self.size):
            yield torch.randn(min(self.size, self.rows - start), self.width, generator=draw)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--width", type=int, default=1600)
    parser.add_argument("--sites", type=int, default=48)
    parser.add_argument("--rows", type=int, help="default: a tenth more than the width")
    parser.add_argument("--memory", help="a limit, for example 8GiB")
    parser.add_argument("--checkpoint", action="store_true", help="after every batch")
    parser.add_argument("--out", type=Path, help="default: a temporary folder")
    options = parser.parse_args()
    if options.checkpoint:
        passes.CHECKPOINT_SECONDS = 0.0
    rows = options.rows or options.width * 11 // 10
    model = nn.Sequential(*(Layer(options.width) for _ in range(options.sites)))
    folder = options.out or Path(tempfile.mkdtemp())
    before = memory.resident()
    began = time.monotonic()
    try:
        analysis = pc.analyze(
            model,
            Drawn(rows, options.width, 400),
            pc.metrics.Spectrum(fit="huber"),
            "*",
            out=folder / "run",
            memory=options.memory,
            progress=False,
        )
    except pc.PolycodeError as error:
        print(f"refused: {error}")
        return
    finally:
        if options.out is None:
            shutil.rmtree(folder, ignore_errors=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"width {options.width}, {len(analysis)} sites, {rows} rows, limit {options.memory}: "
        f"{analysis.run.get('passes', 1)} passes, {time.monotonic() - began:.0f} s; "
        f"held before {memory.size(before)}, at most {memory.size(peak)}"
    )


if __name__ == "__main__":
    main()
