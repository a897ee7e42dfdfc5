"""Coverage of the exponent's interval where a stream ends when it is narrow enough.

    python benchmarks/stopping.py [streams]

Streams of Gaussian rows whose population spectrum is a power law end when the interval is as narrow
as asked for. The interval of all looks has to hold the truth in 95 of 100 of them; beside it that
of the last look alone. Prints a Markdown table.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from polycode_plugins.activations import Activations, Site
from polycode_plugins.metrics import Spectrum
from polycode_plugins.runs.gathering import Statistics
from polycode_plugins.runs.stopping import Stopping, level_of, samples_of

MOST = 2**15  # samples of a stream
CASES = ((32, 1.0, 0.1), (32, 1.0, 0.05), (64, 0.7, 0.03), (64, 1.5, 0.03))


def stream(seed: int, width: int, exponent: float, target: float) -> tuple[int, bool, bool, bool]:
    """(samples, whether it ended early, whether its interval holds the truth, and one of 95%)."""
    draw = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, width + 1, dtype=torch.float64) ** (-exponent / 2)
    metric = Spectrum()
    statistics = Statistics([metric], [Site("x")])
    stopping = Stopping(target, [metric])
    rows = 0
    while not stopping.reached and rows < MOST:
        size = 1024 if rows < 2048 else rows  # looks are at 1024, 2048, 4096, ..
        before = samples_of(statistics)
        values = torch.randn(size, width, generator=draw, dtype=torch.float64) * scale
        numbers = torch.arange(rows, rows + size)
        statistics.receive("x", Activations(values, ("batch", "feature"), None, numbers, numbers))
        rows += size
        stopping.after(statistics, before)
    fit = statistics.compute("x", metric).power_law
    look = (rows // 1024).bit_length() + (not stopping.reached)
    ends = [fit.at_level(level_of(look)).interval, fit.interval]
    inside = [low < exponent < high for low, high in ends]
    return rows, stopping.reached, inside[0], inside[1]


def main() -> None:
    """Print the table."""
    streams = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    heads = ("width", "exponent", "error", "samples (median)", "ended early", "all looks", "last")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for width, exponent, target in CASES:
        found = np.array([stream(seed, width, exponent, target) for seed in range(streams)])
        early, wide, alone = found[:, 1:].mean(axis=0)
        print(
            f"| {width} | {exponent} | {target} | {int(np.median(found[:, 0])):,} | {early:.0%} "
            f"| {wide:.1%} | {alone:.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
