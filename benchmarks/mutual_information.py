"""The panel of mutual-information estimators beside benchmark-mi's MINE, on benchmark-mi's tasks.

    python benchmarks/mutual_information.py --peer-python PEER/bin/python [--quick] [--write]

benchmark-mi (Czyz et al. 2023) pins old libraries, so it lives in an environment of its own:

    python3.11 -m venv PEER
    PEER/bin/pip install benchmark-mi==0.1.3 jax==0.4.30 jaxlib==0.4.30 \\
        equinox==0.10.11 optax==0.1.9 numpy==1.26.4 pandas==1.5.3

For every task and seed the peer draws the samples and runs its MINE with its defaults; the panel
then reads the same samples. Both run on one and the same core, one after the other; seconds are of
that core's time in the estimate alone, without imports. Without --peer-python a few tasks with
closed forms are drawn here and the panel is shown alone. The estimators' settings and the rule of
recommendation were settled on other tasks and other seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from polycode_plugins.information import DEFAULT, estimate

TASKS = (
    "1v1-normal-0.75",
    "normal_cdf-1v1-normal-0.75",
    "1v1-additive-0.1",
    "1v1-additive-0.75",
    "1v1-bimodal-0.75",
    "wiggly-1v1-normal-0.75",
    "half_cube-1v1-normal-0.75",
    "student-identity-1-1-1",
    "swissroll_x-normal_cdf-1v1-normal-0.75",
    "multinormal-dense-5-5-0.5",
    "multinormal-dense-25-25-0.5",
    "multinormal-sparse-5-5-2-2.0",
    "multinormal-sparse-25-25-2-2.0",
    "student-identity-3-3-2",
    "student-identity-5-5-2",
    "spiral-multinormal-sparse-5-5-2-2.0",
)
QUICK = ("1v1-normal-0.75", "student-identity-1-1-1", "multinormal-sparse-5-5-2-2.0")
WRITTEN = Path(__file__).parents[1] / "docs" / "accuracy" / "mutual-information.md"

PEER = """
import json, sys, time
import bmi, numpy as np
for line in sys.stdin:
    name, seed, n, path = json.loads(line)
    task = bmi.benchmark.BENCHMARK_TASKS[name]
    x, y = task.sample(n, seed=seed)
    np.savez(path, x=np.asarray(x, dtype=np.float64), y=np.asarray(y, dtype=np.float64))
    start = time.process_time()
    nats = float(bmi.estimators.MINEEstimator(verbose=False, seed=seed).estimate(x, y))
    seconds = time.process_time() - start
    print(json.dumps(["result", float(task.mutual_information), nats, seconds]), flush=True)
"""

Task = tuple[str, np.ndarray, np.ndarray, float, float, float]


def from_peer(python: str, names: tuple[str, ...], seeds: range, n: int) -> Iterator[Task]:
    """Name, samples, truth, and the peer's estimate [nats] and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [python, "-c", PEER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        for name in names:
            for seed in seeds:
                path = str(Path(folder) / "samples.npz")
                process.stdin.write(json.dumps([name, seed, n, path]) + "\n")
                process.stdin.flush()
                for line in process.stdout:
                    if line.startswith('["result"'):
                        break
                else:
                    sys.exit(f"the peer ended; does {python} have benchmark-mi?")
                _, truth, nats, seconds = json.loads(line)
                with np.load(path) as samples:
                    yield name, samples["x"], samples["y"], truth, nats, seconds
        process.stdin.close()
        process.wait()


def own(seeds: range, n: int) -> Iterator[Task]:
    """A few tasks with closed forms, without a peer."""
    for seed in seeds:
        rng = np.random.default_rng(seed)
        for width, correlations in ((1, [0.75]), (5, [0.8, 0.8])):
            r = np.array(correlations + [0.0] * (width - len(correlations)))
            x = rng.normal(size=(n, width))
            y = r * x + np.sqrt(1 - r**2) * rng.normal(size=(n, width))
            truth = float(-0.5 * np.log1p(-(r**2)).sum())
            yield f"Gaussian {width}x{width}", x, y, truth, float("nan"), float("nan")
        x = rng.uniform(size=(n, 1))
        y = x + rng.uniform(-0.1, 0.1, size=(n, 1))
        yield "additive 0.1", x, y, 0.1 - np.log(0.2), float("nan"), float("nan")


def table(tasks: Iterator[Task], seeds: int) -> str:
    """The table in markdown, averaged over the seeds of a task, and its summary."""
    found: dict[str, list[list[float]]] = {}
    for name, x, y, truth, peer, peer_seconds in tasks:
        start = time.process_time()
        result = estimate(x, y, seed=len(found.get(name, [])))
        seconds = time.process_time() - start
        values = [result.estimates.get(k, float("nan")) for k in DEFAULT]
        row = [truth, *values, result.nats, peer, seconds, peer_seconds]
        found.setdefault(name, []).append(row)
        print(f"{name}: {result.nats:.3f} (true {truth:.3f})", file=sys.stderr, flush=True)
    heads = ["task", "true", *DEFAULT, "**recommended**", "peer's MINE", "CPU s", "peer's"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, rows in found.items():
        mean = np.mean(rows, axis=0)
        cells = [f"{v:.3f}" for v in mean[:-2]] + [f"{v:.1f}" for v in mean[-2:]]
        cells = [cell.replace("nan", "") for cell in cells]  # without a peer
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    every = np.array([row for rows in found.values() for row in rows])
    ours, theirs = (np.abs(every[:, i] - every[:, 0]).mean() for i in (-4, -3))
    lines += [
        "",
        f"Values in nats, means over {seeds} seed{'s' if seeds > 1 else ''}. Over all "
        f"{len(every)} draws:",
        "",
        "| | mean absolute error [nats] | largest | total CPU seconds |",
        "|---|---|---|---|",
    ]
    for name, i, error, time_column in (
        ("recommended", -4, ours, -2),
        ("peer's MINE", -3, theirs, -1),
    ):
        if np.isnan(error):
            continue  # there was no peer
        largest = np.abs(every[:, i] - every[:, 0]).max()
        lines.append(
            f"| {name} | {error:.3f} | {largest:.3f} | {every[:, time_column].sum():.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy and time of the estimators of MI.")
    parser.add_argument("--peer-python", help="python of an environment with benchmark-mi")
    parser.add_argument("--quick", action="store_true", help="three tasks, one seed")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=2, help="draws of each task")
    parser.add_argument("--write", action="store_true", help=f"write {WRITTEN.name} in docs")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # the peer inherits it
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    n_seeds = 1 if options.quick else options.seeds
    seeds = range(1000, 1000 + n_seeds)
    if options.peer_python:
        names = QUICK if options.quick else TASKS
        tasks = from_peer(options.peer_python, names, seeds, options.samples)
    else:
        tasks = own(seeds, options.samples)
    text = table(tasks, n_seeds)
    print(text)
    if options.write:
        WRITTEN.parent.mkdir(parents=True, exist_ok=True)
        WRITTEN.write_text(
            f"Tasks of benchmark-mi 0.1.3 at N = {options.samples}; the peer is its MINE with its "
            "defaults, on the same samples and the same core "
            f"(`benchmarks/mutual_information.py`, seeds {seeds.start} to {seeds.stop - 1}).\n\n"
            f"{text}\n"
        )


if __name__ == "__main__":
    main()
