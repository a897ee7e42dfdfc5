"""The command `polycode`: its parser, and what becomes of errors and interruptions.

Results go to standard output (`--json` where a program may read them), progress and messages to
standard error. A user's mistake is one sentence and exit status 2, never a traceback.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from traceback import walk_tb
from typing import Any

from polycode_plugins._version import __version__
from polycode_plugins.commands import (
    analyze,
    check,
    compare,
    completion,
    diff,
    merge,
    plugins,
    reference,
    report,
    reproduce,
    sites,
)
from polycode_plugins.commands.arguments import say, told
from polycode_plugins.commands.output import messages_unread, nowhere, results_alone
from polycode_plugins.commands.parsing.parser import Parser, subcommands
from polycode_plugins.commands.parsing.settings import expanded
from polycode_plugins.errors import PolycodeError, PolycodeWarning
from polycode_plugins.files.guards import read_json, reason_of, shown
from polycode_plugins.plugins import KINDS

_COMMANDS = (
    *(analyze, sites, plugins, report, diff, compare, check, reference, reproduce, merge),
    completion,
)
INTERRUPTED = 130  # the status of a program that Ctrl-C has ended, as shells have it


def program() -> int:
    """`main`, as a program: a second Ctrl-C ends it at once, without a word and with status 130."""
    try:
        status = main()
    except KeyboardInterrupt:  # while the first one was spoken of
        status = INTERRUPTED
    if status == INTERRUPTED:
        # Libraries clean up at the end of a process; there is nothing of ours to lose.
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    with messages_unread():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = parser_of_all()
    try:
        arguments = expanded(arguments, subcommands(parser))
    except PolycodeError as error:
        sys.stderr.write(f"polycode: {shown(str(error))}\n")
        return 2
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return 0
    options.command_line = "polycode " + shlex.join(arguments)
    options.parser = parser
    run: Callable[[argparse.Namespace], int] = options.run
    warnings.showwarning, shown_before = _warned(warnings.showwarning), warnings.showwarning
    try:
        with told(options), results_alone() if getattr(options, "json", False) else nullcontext():
            status = run(options)
            sys.stdout.flush()
        return status
    except PolycodeError as error:
        if getattr(options, "verbose", False):
            traceback.print_exception(error)
        # In one piece: torchrun has several writers.
        sys.stderr.write(f"polycode: {shown(str(error))}\n")
        return 2
    except SystemExit as error:  # no code of ours does that: it would end here without a word
        say(f"polycode: {shown(_who_left(error))}")
        return 1
    except KeyboardInterrupt:
        say(f"polycode: interrupted; {_then(options)}")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        nowhere(sys.stdout)
        return 0
    except OSError as error:  # a disk or a file that somebody else's code did not expect
        what = f"{str(error.filename)!r}: " if error.filename is not None else ""
        say(f"polycode: {shown(what + reason_of(error))}")
        return 2
    finally:
        warnings.showwarning = shown_before


def _warned(usual: Callable[..., None]) -> Callable[..., None]:
    """Our own warnings as sentences, and others as they are."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **named: Any) -> None:
        if issubclass(category, PolycodeWarning):
            say(f"polycode: {shown(str(message))}")
        else:
            usual(message, category, *where, **named)

    return show


def _who_left(error: SystemExit) -> str:
    """Whose code called sys.exit in the middle of a run."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    module = frames[-1].f_globals.get("__name__", "unknown") if frames else "unknown"
    return (
        f"the code of {module!r} ended the run by itself (SystemExit: {error.code}); update what "
        "it belongs to, or leave it out"
    )


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


def parser_of_all() -> argparse.ArgumentParser:
    """The parser of the command line, with all commands."""
    parser = Parser(
        prog="polycode",
        description="How redundant, smooth and explainable is a network's code.",
        examples=["polycode analyze --out out/first    # the embedded model, offline"],
    )
    parser.set_defaults(run=None)
    parser.add_argument("--version", action="version", version=f"polycode-plugins {__version__}")
    parser.kinds = KINDS
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return parser
