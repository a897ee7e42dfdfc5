"""The command `polycode`: its parser, and what becomes of errors and interruptions.

Results go to standard output (`--json` where a program may read them), progress and messages to
standard error. A user's mistake is one sentence and exit status 2, never a traceback.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence

from polycode_plugins._version import __version__
from polycode_plugins.commands import (
    analyze,
    check,
    compare,
    merge,
    plugins,
    reference,
    report,
    reproduce,
    sites,
)
from polycode_plugins.commands.arguments import say
from polycode_plugins.errors import PolycodeError
from polycode_plugins.files.guards import shown


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
        return run(options)
    except PolycodeError as error:
        # In one piece: torchrun has several writers.
        sys.stderr.write(f"polycode: {shown(str(error))}\n")
        return 2
    except KeyboardInterrupt:
        lost = run is analyze.run and options.out is None
        then = "without --out nothing is kept" if lost else "repeat the same command to go on"
        say(f"polycode: interrupted; {then}")
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="polycode",
        description="How redundant, smooth and explainable is a network's code.",
    )
    parser.set_defaults(run=None)
    parser.add_argument("--version", action="version", version=f"polycode-plugins {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in (analyze, sites, plugins, report, compare, check, reference, reproduce, merge):
        command.add(commands)
    return parser
