"""The command `polycode report`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from polycode_plugins.commands.arguments import say


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "report",
        help="write the report of a finished run or comparison",
        examples=["polycode report my-run"],
    )
    parser.set_defaults(run=run)
    parser.add_argument("folder", type=Path, help="a run's folder")
    parser.add_argument("--out", type=Path, help="default: report.html in the folder")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from polycode_plugins.report.folder import write_folder

    path = options.out if options.out is not None else options.folder / "report.html"
    written, left_out = write_folder(options.folder, path)
    if left_out:
        say(left_out)
    print(written)
    return 0
