"""The panel of mutual-information estimators beside benchmark-mi's MINE, on benchmark-mi's tasks.

    python benchmarks/mutual_information.py --peer-python PEER/bin/python [--quick] [--write]
    python benchmarks/mutual_information.py --repeated [--quick] [--write]

benchmark-mi (Czyz et al. 2023) pins old libraries, so it lives in an environment of its own:

    python3.11 -m venv PEER
    PEER/bin/pip install benchmark-mi==0.1.3 jax==0.4.30 jaxlib==0.4.30 \\
        equinox==0.10.11 optax==0.1.9 numpy==1.26.4 pandas==1.5.3

For every task and seed the peer draws the samples and runs its MINE with its defaults; the panel
then reads the same samples. Both run on one and the same core, one after the other; seconds are of
that core's time in the estimate alone, without imports. Without --peer-python a few tasks with
closed forms are drawn here and the panel is shown alone. The estimators' settings and the rule of
recommendation were settled on other tasks and other seeds.

--repeated: values that repeat (zeros, rounding, quantisation, labels), of which no such benchmark
exists; truths by quadrature (`polycode_plugins.testing.reference`).
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

from polycode_plugins.information import DEFAULT, MutualInformation, estimate
from polycode_plugins.testing.reference.generators import correlated, labels
from polycode_plugins.testing.reference.oracles import distorted_gaussian_information

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
WRITTEN_REPEATED = WRITTEN.with_name("mutual-information-repeated.md")

#: What becomes of x and of y.
REPEATED = {
    "zeros after a ReLU, both sides": ("relu", "relu"),
    "zeros after a ReLU, one side": ("relu", ""),
    "rounded to 0.1": ("rounded 1", "rounded 1"),
    "rounded to 1": ("rounded 0", "rounded 0"),
    "quantisation channel, 2 bits": ("", "quantised 2"),
    "quantisation channel, 3 bits": ("", "quantised 3"),
    "quantisation channel, 4 bits": ("", "quantised 4"),
    "both sides of 2 bits": ("quantised 2", "quantised 2"),
    "both sides of 1 bit": ("quantised 1", "quantised 1"),
    "bfloat16": ("bfloat16", "bfloat16"),
}
CORRELATION = 0.6

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


def repeated(n: int, draws: int, panel_draws: int, widths: tuple[int, ...]) -> str:
    """Independent and dependent pairs of each kind, in markdown."""
    plain = ("gaussian", "ksg")
    head = (
        "| values | width | independent: mean | interval excludes 0 | dependent: true "
        "| **recommended** | truth in the interval | gaussian | ksg |"
    )
    lines = [head, "|---" * 9 + "|"]
    outside, total = 0, 0
    for kind, (x, y) in REPEATED.items():
        one = distorted_gaussian_information(CORRELATION, x, y)
        for width in widths:
            nothing = [_drawn(n, width, 0.0, x, y, seed, plain) for seed in range(draws)]
            something = [_drawn(n, width, CORRELATION, x, y, s, plain) for s in range(draws)]
            excluded = sum(found.interval[0] > 0 for found in nothing)
            outside, total = outside + excluded, total + draws
            truth = width * one
            held = np.mean([f.interval[0] <= truth <= f.interval[1] for f in something])
            by = [np.mean([f.unclipped[k] for f in something]) for k in plain]
            lines.append(
                f"| {kind} | {width} | {np.mean([f.nats for f in nothing]):.3f} "
                f"| {excluded} of {draws} | {truth:.3f} "
                f"| {np.mean([f.nats for f in something]):.3f} | {held:.0%} "
                f"| {by[0]:.3f} | {by[1]:.3f} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    lines += ["", f"Over all {total} independent draws {outside} intervals exclude 0."]
    seen, count = [], 0
    for x, y in REPEATED.values():
        for seed in range(panel_draws):
            found = _drawn(n, widths[seed % len(widths)], 0.0, x, y, 1000 + seed, DEFAULT)
            seen.append(found.nats)
            count += found.interval[0] > 0
            print(x, y, found.unclipped, found.recommended, file=sys.stderr, flush=True)
    if seen:
        lines[-1] += (
            f" With the whole panel, critics included, {count} of {len(seen)} do, and the largest "
            f"value is {max(seen):.3f}."
        )
    return "\n".join([*lines, "", *_of_labels(draws)])


def _drawn(
    n: int, width: int, correlation: float, x: str, y: str, seed: int, names: tuple[str, ...]
) -> MutualInformation:
    pair = correlated(np.random.default_rng(2000 + seed), n, width, correlation, x=x, y=y)
    return estimate(pair["x"], pair["y"], estimators=names, seed=seed)


def _of_labels(draws: int) -> list[str]:
    lines = [
        "| labels | samples | noise | true | **recommended** | sd | truth in the interval |",
        "|---|---|---|---|---|---|---|",
    ]
    for values, n in ((10, 300), (30, 3000), (50, 3000)):
        for noise in (1.0, 0.5, 0.1):
            same = 1 - noise + noise / values
            other = noise / values
            truth = np.log(values) + same * np.log(same) + (values - 1) * other * np.log(other)
            found = []
            for seed in range(5 * draws):
                pair = labels(np.random.default_rng(3000 + seed), n, values, noise)
                found.append(estimate(pair["x"], pair["y"], estimators=["ksg"], seed=seed))
            nats = [f.unclipped["ksg"] for f in found]
            held = np.mean([f.interval[0] - 1e-9 <= truth <= f.interval[1] for f in found])
            lines.append(
                f"| {values} x {values} | {n} | {noise:g} | {abs(truth):.3f} | {np.mean(nats):.3f} "
                f"| {np.std(nats):.3f} | {held:.0%} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy and time of the estimators of MI.")
    parser.add_argument("--peer-python", help="python of an environment with benchmark-mi")
    parser.add_argument("--quick", action="store_true", help="three tasks, one seed")
    parser.add_argument("--repeated", action="store_true", help="values that repeat instead")
    parser.add_argument("--draws", type=int, default=8, help="of each kind that repeats")
    parser.add_argument("--panel-draws", type=int, default=2, help="likewise, by the whole panel")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=2, help="draws of each task")
    parser.add_argument("--write", action="store_true", help=f"write {WRITTEN.name} in docs")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # the peer inherits it
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    if options.repeated:
        widths = (1,) if options.quick else (1, 2, 3, 6)
        n, draws = 2000, options.draws
        text = repeated(n, draws, 0 if options.quick else options.panel_draws, widths)
        print(text)
        if options.write:
            WRITTEN_REPEATED.write_text(
                "Values that repeat: Gaussian coordinates, each correlated with its own partner "
                f"({CORRELATION:g}) or independent, after what networks and number formats do to "
                f"them; N = {n}, {draws} draws of each, truths by quadrature, estimators gaussian "
                "and ksg (`benchmarks/mutual_information.py --repeated`). In nats.\n\n"
                f"{text}\n"
            )
        return
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
