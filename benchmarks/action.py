"""The action beside the trace, sampling and a user's own loop.

    python benchmarks/action.py [--quick] [--write]

Three questions: how far the exact figure is from the trace of the increments, how far 1000 random
projections are from the exact figure, and what it costs beside the loop that one would write (draw
a projection, project the path, sum the squared differences, a thousand times).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polycode_plugins.activations import Activations, Site
from polycode_plugins.metrics import Action, trajectories

WRITTEN = Path(__file__).parent.parent / "docs" / "accuracy" / "action.md"
PROJECTIONS, DIMENSIONS = 1000, 3


def naive(path: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    """Actions [projections] of the loop one would write."""
    rng = np.random.default_rng(seed)
    width = path.shape[1]
    actions = np.empty(PROJECTIONS)
    for i in range(PROJECTIONS):
        r = rng.standard_normal((width, DIMENSIONS)) / width**0.5
        actions[i] = 0.5 * np.square(np.diff(path @ r, axis=0)).sum()
    return actions


def paths(quick: bool) -> dict[str, np.ndarray[Any, Any]]:
    """Paths [time, width]: no order, a walk, one in few dimensions, far from zero, long, wide."""
    rng = np.random.default_rng(0)
    turn = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    found = {
        "noise, T=200, m=512": rng.standard_normal((200, 512)),
        "walk, T=200, m=512": rng.standard_normal((200, 512)).cumsum(axis=0),
        "circle in 2 directions, T=200, m=512": circle @ rng.standard_normal((2, 512)),
        "one coordinate at mean 1000, T=5000, m=64": rng.standard_normal((5000, 64))
        + 1000 * np.eye(64)[0],
    }
    if not quick:
        found["walk, T=20000, m=768"] = rng.standard_normal((20_000, 768)).cumsum(axis=0)
        found["walk, T=100, m=50000"] = rng.standard_normal((100, 50_000)).cumsum(axis=0)
    return found


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and the seconds of processor time it took."""
    start = time.process_time()
    found = call()
    return found, time.process_time() - start


def streamed(path: np.ndarray[Any, Any], seed: int) -> Any:
    """The metric over batches of 64 rows, as `analyze` feeds it."""
    metric = Action(projections=PROJECTIONS, dimensions=DIMENSIONS, seed=seed)
    accumulators = metric.accumulators()
    rows = torch.arange(len(path))
    for part in rows.split(64):
        batch = Activations(torch.from_numpy(path)[part], ("batch", "feature"), rows=part)
        for accumulator in accumulators.values():
            accumulator.update(batch)
    return metric.compute(accumulators, Site("path"))


def table(quick: bool, seeds: int) -> str:
    lines = [
        "| path | exact / trace - 1 | sd of one action | sd of the mean of 1000 | "
        "Monte Carlo / exact - 1: rms | largest | loop: rms | metric [s] | `trajectories` [s] | "
        "loop [s] |",
        "|---" * 10 + "|",
    ]
    for name, path in paths(quick).items():
        trace = float(np.square(np.diff(path, axis=0)).sum())
        exact = DIMENSIONS / (2 * path.shape[1]) * trace
        few = seeds if path.size < 1_000_000 else 1
        sampled, looped, cost, loop_cost = [], [], [], []
        for seed in range(few):
            found, seconds = timed(lambda p=path, s=seed: streamed(p, s))
            own, own_seconds = timed(lambda p=path, s=seed: naive(p, s))
            sampled.append(found.monte_carlo / exact - 1)
            looped.append(own.mean() / exact - 1)
            cost.append(seconds)
            loop_cost.append(own_seconds)
        _, drawn = timed(lambda p=path: trajectories(p, PROJECTIONS, DIMENSIONS, keep=9))
        one = found.sd / exact
        lines.append(
            f"| {name} | {found.expected / exact - 1:.0e} | {one:.1%} | "
            f"{one / PROJECTIONS**0.5:.2%} | {np.sqrt(np.mean(np.square(sampled))):.2%} | "
            f"{np.abs(sampled).max():.2%} | {np.sqrt(np.mean(np.square(looped))):.2%} | "
            f"{np.median(cost):.2f} | {drawn:.2f} | {np.median(loop_cost):.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="four paths, three seeds")
    parser.add_argument("--write", action="store_true", help=f"write {WRITTEN.name} in docs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = 3 if options.quick else 10
    text = table(options.quick, seeds)
    print(text)
    if options.write:
        WRITTEN.parent.mkdir(parents=True, exist_ok=True)
        WRITTEN.write_text(
            "The action of paths of T steps in m neurons over 1000 random projections to 3 "
            f"dimensions, {seeds} seeds (1 for paths of a million values and more); seconds of "
            "processor time on one core (`benchmarks/action.py`). The loop draws a projection, "
            "projects the whole path and sums squared differences, a thousand times; the metric "
            "gets batches of 64 rows and never holds the path.\n\n"
            f"{text}\n\n"
            "The sd of one action over projections is exact, not estimated. A path in few "
            "directions has a wide one, so that 1000 projections can miss by more than 1%; the "
            "exact figure does not depend on them.\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
