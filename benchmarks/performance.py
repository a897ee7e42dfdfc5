"""Every table of docs/performance.md, measured again.

    python benchmarks/performance.py [TABLES ..] [--write FOLDER]

One script after the other, so that none is measured beside another; what each prints goes to
docs/performance/NAME.md, with its command and the load of the machine before and after. Takes about
half an hour on two cores. A table that cannot be had here keeps what it had, and is named.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Table:
    """A script, what it is given, and where it runs.

    Attributes:
        command: the script in this folder, and its arguments.
        python: which runs it; another environment's where the script needs one.
        environment: variables for it.
    """

    command: Sequence[str]
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)

    def missing(self) -> str | None:
        """Why it cannot be had here, if so."""
        if Path(self.python).exists():
            return None
        return f"there is no {self.python}; make test-vllm makes that environment"


ENGINE = str(Path(os.environ.get("VLLM_ENVIRONMENT", ROOT / "build" / "vllm")) / "bin" / "python")
QUIET = {"VLLM_NO_USAGE_STATS": "1", "TQDM_DISABLE": "1"}

TABLES = {
    "overhead": Table(("overhead.py", "--quick", "--threads", "1")),
    "answer": Table(("answer.py",)),
    "engine-vllm": Table(("engine.py", "vllm", "random"), ENGINE, QUIET),
    "engine-transformers": Table(("engine.py", "transformers", "random")),
    "engine-transformer-lens": Table(
        ("engine.py", "transformer-lens", "random"), environment=QUIET
    ),
    "collection": Table(("collection.py",)),
    "server": Table(("explainer_throughput.py",)),
    "merging": Table(("merging.py",)),
    "import": Table(("import_time.py",)),
}


def measure(table: Table) -> str:
    """Markdown: the command, the load, and what the script printed."""
    before = os.getloadavg()[0]
    done = subprocess.run(
        [table.python, str(ROOT / "benchmarks" / table.command[0]), *table.command[1:]],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(table.environment),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    after = os.getloadavg()[0]
    told = f"`python benchmarks/{' '.join(table.command)}`, at a load of {before:.1f} before and"
    return f"{told} {after:.1f} after:\n\n{done.stdout.strip()}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tables", nargs="*", metavar="TABLES", help=f"of {', '.join(TABLES)}")
    parser.add_argument("--write", type=Path, default=ROOT / "docs" / "performance")
    options = parser.parse_args()
    unknown = sorted(set(options.tables) - set(TABLES))
    if unknown:
        parser.error(f"there is no table {', '.join(unknown)}; there are {', '.join(TABLES)}")
    options.write.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in options.tables or TABLES:
        why, began = TABLES[name].missing(), time.monotonic()
        if why is None:
            try:
                made = measure(TABLES[name])
                (options.write / f"{name}.md").write_text(made, encoding="utf-8")
            except subprocess.CalledProcessError as error:
                why, failed = f"it ended with {error.returncode}", failed + 1
        told = "measured" if why is None else f"left as it was: {why}"
        print(f"{name}: {told} ({time.monotonic() - began:.0f} s)", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
