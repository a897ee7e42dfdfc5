"""Time and memory of `polycode merge` for many small shards.

    python benchmarks/merging.py [shards] [width]

Makes the shards of one analysis (four sites), and joins them. Prints seconds, the peak of resident
memory, and how far the merged eigenvalues are off those of one run, relative to the largest.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

import polycode_plugins as pc
from polycode_plugins.files import storage
from polycode_plugins.runs import passes
from polycode_plugins.runs.gathering import Statistics


def unfinished(statistics: Statistics, run: dict[str, Any], *_: Any) -> pc.Analysis:
    """A shard without its results, which merging does not read."""
    sites = [asdict(site) for site in statistics.sites.values()]
    return pc.Analysis(statistics, {}, {**run, "sites": sites})


def main() -> None:
    """Print the figures."""
    shards = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    width = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(width, width) for _ in range(4))).double()
    rows = torch.randn(8 * shards, width, dtype=torch.float64)
    metric = pc.metrics.Spectrum(fit="huber", ranks=(1, None))

    def part(index: int, count: int) -> pc.Analysis:
        return pc.analyze(model, rows, [metric], batch_size=256, shard=(index, count))

    whole = part(0, 1)
    with tempfile.TemporaryDirectory() as home:
        finish, passes.finish = passes.finish, unfinished
        folders = []
        for i in range(shards):
            made = part(i, shards)
            state = made.statistics.saved_state()
            folders.append(storage.save(Path(home) / str(i), state, [], made.run))
        passes.finish = finish
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.monotonic()
        joined = pc.Analysis.merged(folders)
        took = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    off = max(
        abs(joined[s, "spectrum"].eigenvalues - whole[s, "spectrum"].eigenvalues).max()
        / whole[s, "spectrum"].eigenvalues[0]
        for s in whole
    )
    print(f"{shards} shards of width {width}, four sites: {took:.1f} s, {off:.1e} off one run")
    print(f"peak memory {before / 1024:.0f} MiB before, {after / 1024:.0f} MiB after")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
