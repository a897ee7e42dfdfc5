"""How long people wait for the package itself: imports, `polycode --help`, listing plugins.

    python benchmarks/import_time.py [--quick]

Each line is the median over fresh processes, which take turns so that a busy machine is busy for
all of them. What torch takes is a line of its own: the package cannot be quicker than that. The
budgets are for the processor's time, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import resource
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
    waited: dict[str, list[float]] = {name: [] for name in COMMANDS}
    worked: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(rounds + 1):
        for name, command in COMMANDS.items():
            began, used = time.perf_counter(), _processor()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            if turn:  # the first round fills the caches of the disk
                waited[name].append(time.perf_counter() - began)
                worked[name].append(_processor() - used)
    for found in (waited, worked):
        pairs = zip(found["import torch, all public names"], found["import torch"], strict=True)
        found["import beyond torch"] = [ours - torch for ours, torch in pairs]
    median = {name: statistics.median(found) for name, found in worked.items()}
    print("| What | Processor, median [s] | Budget [s] | Wait, median [s] | Wait, least [s] |")
    print("|---|---|---|---|---|")
    for name, value in median.items():
        budget = BUDGETS.get(name)
        shown = "" if budget is None else f"{budget} {'kept' if value <= budget else 'BROKEN'}"
        wait, least = statistics.median(waited[name]), min(waited[name])
        print(f"| {name} | {value:.2f} | {shown} | {wait:.2f} | {least:.2f} |")
    return int(any(median[name] > budget for name, budget in BUDGETS.items()))


def _processor() -> float:
    """Seconds that the processes so far have worked."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
