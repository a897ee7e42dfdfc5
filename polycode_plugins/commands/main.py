"""The command `polycode`: its parser, and what becomes of errors and interruptions.

Results go to standard output (`--json` where a program may read them), progress and messages to
standard error. A user's mistake is one sentence and exit status 2, never a traceback.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from polycode_plugins._version import __version__
from polycode_plugins.commands import (
    analyze,
    check,
    compare,
    diff,
    merge,
    plugins,
    reference,
    report,
    reproduce,
    sites,
)
from polycode_plugins.commands.arguments import say
from polycode_plugins.errors import PolycodeError
from polycode_plugins.files.guards import read_json, shown


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return 0
    options.command_line = "polycode " + shlex.join(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        status = run(options)
        sys.stdout.flush()
        return status
    except PolycodeError as error:
        # In one piece: torchrun has several writers.
        sys.stderr.write(f"polycode: {shown(str(error))}\n")
        return 2
    except KeyboardInterrupt:
        say(f"polycode: interrupted; {_then(options)}")
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        # What is still to be written at the end of the process goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _then(options: argparse.Namespace) -> str:
    """What to do after an interruption."""
    out = getattr(options, "out", None)
    if options.run is analyze.run and out is None:
        return "without --out nothing is kept"
    if options.run in (analyze.run, *compare.RUNS, merge.run) and out:
        from polycode_plugins.files.storage import COMPARISON, RUN

        record = COMPARISON if options.run in compare.RUNS else RUN
        with suppress(PolycodeError):
            found = read_json(out / record)
            if record == COMPARISON or found.get("complete"):
                return f"the results are in {str(out)!r}: 'polycode report {out}' writes the report"
    return "repeat the same command to go on"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="polycode",
        description="How redundant, smooth and explainable is a network's code.",
    )
    parser.set_defaults(run=None)
    parser.add_argument("--version", action="version", version=f"polycode-plugins {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in (
        analyze,
        sites,
        plugins,
        report,
        diff,
        compare,
        check,
        reference,
        reproduce,
        merge,
    ):
        command.add(commands)
    return parser
