"""The command `polycode diff`."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from polycode_plugins.commands.arguments import say
from polycode_plugins.commands.output import print_result
from polycode_plugins.errors import DataError
from polycode_plugins.files.guards import shown

#: Columns of `RunDifference.to_dataframe` that are printed.
_SHOWN = (
    "first", "second", "difference", "low", "high", "evident", "paired", "correlation",
)  # fmt: skip


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "diff",
        help="two finished runs side by side",
        description="Differences of two runs by site, with intervals; where both read the same "
        "rows and have the metric cka, intervals are paired (by the correlation of both numbers' "
        "errors), and there is CKA between their sites.",
        examples=["polycode diff before after"],
    )
    parser.set_defaults(run=run)
    parser.add_argument("first", type=Path, help="a run's folder")
    parser.add_argument("second", type=Path, help="another's")
    parser.add_argument(
        "--pair",
        action="append",
        default=[],
        metavar="FIRST=SECOND",
        help="sites that belong together, where names differ; may be repeated",
    )
    parser.add_argument(
        "--unpaired",
        action="store_true",
        help="intervals as of independent runs, which takes less time for very wide sites",
    )
    parser.add_argument("--report", type=Path, help="file to write the page to (default: none)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from polycode_plugins.runs.difference import diff

    pairs = {}
    for text in options.pair:
        one, equals, other = text.partition("=")
        if not equals or not one or not other:
            raise DataError(f"--pair {text!r} is not FIRST=SECOND")
        pairs[one] = other
    found = diff(options.first, options.second, sites=pairs or None, paired=not options.unpaired)
    written = found.report(options.report) if options.report is not None else None
    if options.json:
        print_result(json.dumps(found.to_dict()))
    else:
        frame = found.to_dataframe()
        width = shutil.get_terminal_size((100, 24)).columns
        for label in found.metrics:
            for field in found.headline(label):
                part = frame[(frame.metric == label) & (frame.field == field)].set_index("site")
                part = part[list(_SHOWN)]
                part.index.name = None
                print(f"\n{label}: {field.replace('_', ' ')}")
                form = lambda v: f"{v:.4g}"  # noqa: E731
                print(part.to_string(float_format=form, na_rep="-", line_width=width))
        if found.likeness is not None:
            print("\nCKA of the same site")
            for name, (value, low, high) in found.likeness.same().items():
                span = "" if low != low else f" ({low:.3f} to {high:.3f})"
                print(f"{name}  {value:.3f}{span}")
        print()
    for note in found.notes:
        say(shown(note))
    if found.why:
        say(shown(f"no CKA: {found.why}"))
    if written is not None:
        say(f"report: {written}")
    return 0
