"""How long people wait for the package itself: imports, `polycode --help`, listing plugins.

    python benchmarks/import_time.py [--quick]

Each line is the median over fresh processes, which take turns so that a busy machine is busy for
all of them. What torch takes is said beside it: the package cannot be quicker than that.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

BUDGETS = {"import beyond torch": 0.3, "polycode --help": 1.0}
COMMANDS = {
    "python": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import polycode_plugins": ["-c", "import polycode_plugins"],
    "import torch, all public names": [
        "-c",
        "import torch, polycode_plugins as pc\nfor name in pc.__all__: getattr(pc, name)",
    ],
    "polycode --help": ["-m", "polycode_plugins", "--help"],
    "polycode plugins --no-import": ["-m", "polycode_plugins", "plugins", "--no-import"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds, not 15")
    rounds = 3 if parser.parse_args().quick else 15
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(rounds + 1):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            if turn:  # the first round fills the caches of the disk
                seconds[name].append(time.perf_counter() - began)
    median = {name: statistics.median(found) for name, found in seconds.items()}
    beyond = [
        ours - torch
        for ours, torch in zip(
            seconds["import torch, all public names"], seconds["import torch"], strict=True
        )
    ]
    median["import beyond torch"] = statistics.median(beyond)
    print("| What | Median [s] | Fastest [s] | Budget [s] |")
    print("|---|---|---|---|")
    seconds["import beyond torch"] = beyond
    for name, value in median.items():
        budget = BUDGETS.get(name)
        shown = "" if budget is None else f"{budget} {'kept' if value <= budget else 'BROKEN'}"
        print(f"| {name} | {value:.2f} | {min(seconds[name]):.2f} | {shown} |")
    return int(any(median[name] > budget for name, budget in BUDGETS.items()))


if __name__ == "__main__":
    raise SystemExit(main())
