"""The command `polycode merge`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from polycode_plugins.commands.arguments import say
from polycode_plugins.errors import DataError


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "merge",
        help="join runs over disjoint parts of the data",
        examples=["polycode merge part-0 part-1 --out whole"],
    )
    parser.set_defaults(run=run)
    parser.add_argument("folders", type=Path, nargs="+", help="the runs' folders")
    parser.add_argument("--out", type=Path, required=True, help="folder for the joined run")
    parser.add_argument("--no-report", action="store_true", help="write no report.html")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from polycode_plugins.files import storage
    from polycode_plugins.runs.analysis import Analysis

    if (options.out / storage.RUN).exists():
        raise DataError(
            f"{str(options.out)!r} holds a run already; give a new folder ('polycode report "
            f"{options.out}' writes the report of the one that is there)"
        )
    parts = [Analysis.load(folder) for folder in options.folders]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.merge(part)
    joined.run["commands"] = [*joined.run.get("commands", []), options.command_line]
    joined.save(options.out)
    if not options.no_report:
        say(f"report: {joined.report(options.out / 'report.html')}")
    print(options.out)
    return 0
