"""The command `polycode reference`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polycode_plugins.commands.arguments import say
from polycode_plugins.commands.output import print_result
from polycode_plugins.errors import DataError
from polycode_plugins.files.guards import read_json

if TYPE_CHECKING:
    from polycode_plugins.testing.reference import Case, Verdict


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "reference",
        help="hold this package, or another's answers, against known truths",
        description="Measure arrays whose truth is known, by this package or by the answers in a "
        "file. Exit status 0 when all are right, 1 otherwise.",
        examples=["polycode reference --list"],
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="CASE|QUANTITY",
        help="which cases, with * and ? (default: all)",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--list", action="store_true", help="say what the cases are; measure none")
    action.add_argument(
        "--export",
        type=Path,
        metavar="FOLDER",
        help="write the arrays (NAME.npz) and the cases (cases.json); measure none",
    )
    action.add_argument(
        "--answers",
        type=Path,
        metavar="FILE",
        help="judge these answers, a JSON object {CASE: number or list}, and not this package",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from polycode_plugins.testing import reference

    asked = reference.cases(options.names)
    if options.list:
        return _list(asked, options.json)
    if options.export is not None:
        written = reference.export(options.export, asked)
        say(f"{len(written)} files")
        print_result(str(options.export))
        return 0
    if options.answers is not None:
        verdicts = reference.judge(read_json(options.answers, DataError), asked)
    else:
        verdicts = []
        for case in asked:
            verdicts.append(reference.answer(case))
            if not options.json:
                print(_line(verdicts[-1]), flush=True)
    if options.json:
        print_result(json.dumps([v.to_dict() for v in verdicts], indent=1))
    else:
        if options.answers is not None:
            print("\n".join(map(_line, verdicts)))
        right = sum(v.ok for v in verdicts)
        print(f"{right} of {len(verdicts)} right")
    return 0 if all(v.ok for v in verdicts) else 1


def _list(asked: Sequence[Case], as_json: bool) -> int:
    if as_json:
        print_result(json.dumps([asdict(case) for case in asked], indent=1))
        return 0
    for case in asked:
        truth = f"{_short(case.truth)} +- {case.tolerance:g}"
        print(f"{case.name:34} {case.quantity:20} {truth:28} {case.source}")
    return 0


def _line(verdict: Verdict) -> str:
    case = verdict.case
    got = verdict.reason or _short(verdict.value)
    word = "ok   " if verdict.ok else "WRONG"
    return f"{word} {case.name:34} {got:>10}  right {_short(case.truth)} +- {case.tolerance:g}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value)) + "]"
    return f"{value:.5g}"
