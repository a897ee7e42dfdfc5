"""The command `polycode reproduce`."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from polycode_plugins.commands.arguments import assignments, say
from polycode_plugins.commands.output import nowhere, print_result
from polycode_plugins.errors import DataError, PluginError, PolycodeError
from polycode_plugins.files.guards import shown
from polycode_plugins.files.paths import given


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    reproduce = commands.add_parser(
        "reproduce",
        help="make the papers' figures again and judge their claims",
        description="Make figures of the two papers again, as PDF and PNG with their numbers as "
        "CSV, and judge what the papers claim about them. An interrupted run goes on where it was; "
        "a finished one is only read.",
        examples=["polycode reproduce moving-dot --scale smoke"],
    )
    reproduce.set_defaults(run=_run)
    reproduce.add_argument("names", nargs="*", metavar="NAME", help="of a figure, or all")
    reproduce.add_argument("--list", action="store_true", help="list the figures")
    reproduce.add_argument(
        "--scale",
        default="laptop",
        help="smoke (seconds), laptop (minutes, embedded data) or paper (default: %(default)s)",
    )
    reproduce.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    reproduce.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting that differs from the scale's; for one figure; may be repeated",
    )
    reproduce.add_argument(
        "--model",
        metavar="MODEL",
        help="a name, folder or GGUF file in place of the scale's model, for figures of language "
        "models; the same as --set model=MODEL, for all figures named",
    )
    reproduce.add_argument(
        "--text", metavar="SOURCE", help="the texts that the model reads; as --set texts=SOURCE"
    )
    reproduce.add_argument(
        "--out", type=given, default=Path("out/reproduce"), help="default: %(default)s"
    )
    reproduce.add_argument("--fresh", action="store_true", help="compute again what is there")
    reproduce.add_argument("--markdown", type=Path, help="write the page as Markdown, with PNGs")
    reproduce.add_argument("--json", action="store_true", help="print the verdicts as JSON")


def _run(options: argparse.Namespace) -> int:
    from polycode_plugins.experiments import available, get, page, reproduce
    from polycode_plugins.files.storage import write_text

    if options.list:
        _list(as_json=options.json)
        return 0
    names = available() if options.names == ["all"] else list(dict.fromkeys(options.names))
    if not names:
        raise DataError("name a figure, or all; 'polycode reproduce --list' shows them")
    for name in options.names if options.names != ["all"] else ():
        get(name)  # a wrong name ends the command before anything is computed
    changes = assignments(options.set, "--set")
    if changes and len(names) > 1:
        raise DataError("--set changes the settings of one figure; name one")
    asked = {"model": options.model, "texts": options.text}
    changes |= {name: value for name, value in asked.items() if value is not None}
    made, failed = [], []
    for number, name in enumerate(names, 1):
        say(f"[{number}/{len(names)}] {name}")
        try:
            one = reproduce(
                name,
                scale=options.scale,
                seed=options.seed,
                out=options.out,
                changes=changes,
                fresh=options.fresh,
            )
        except PolycodeError as error:
            if len(names) == 1:
                raise
            say(f"polycode: {name}: {error}")
            failed.append((name, str(error)))
            continue
        made.append(one)
        if not options.json:
            try:
                _print(one)
            except BrokenPipeError:  # nobody reads: the others and the page are made
                nowhere(sys.stdout)
    if options.json:
        print_result(json.dumps([_plain(one) for one in made], indent=1))
    if made:
        path = options.out / "index.html"
        write_text(path, page.html(_all_there(made, options), failed))
        say(f"page: {path}")
    if options.markdown is not None and made:
        stem = options.markdown.stem
        page.copy_pictures(made, options.markdown.parent / stem)
        write_text(options.markdown, page.markdown(made, stem))
        say(f"page: {options.markdown}")
    return 2 if failed else 0


def _all_there(made: list[Any], options: argparse.Namespace) -> list[Any]:
    """What was made, and what earlier runs into the same folder made, in the papers' order."""
    from polycode_plugins.experiments import available, finished

    found = {one.experiment.name: one for one in made}
    for name in available():
        if name not in found:
            try:
                one = finished(name, scale=options.scale, seed=options.seed, out=options.out)
            except PluginError:  # of another package, and it does not import
                continue
            if one is not None:
                found[name] = one
    order = [*available(), *found]
    return [found[name] for name in dict.fromkeys(order) if name in found]


def _list(*, as_json: bool) -> None:
    from polycode_plugins.experiments import available, get

    found = []
    for name in available():
        try:
            found.append(get(name))
        except PluginError as error:
            say(f"not listed: {shown(str(error))}")
    if as_json:
        rows = [{"name": e.name, "title": e.title, "source": e.source} for e in found]
        print_result(json.dumps(rows, indent=1))
        return
    for experiment in found:
        print(f"{experiment.name:<24} {experiment.title}\n{'':<24} {experiment.source}")


def _print(one: Any) -> None:
    print(f"\n{one.experiment.title}\n  figure and numbers: {one.folder}  ({one.seconds:,.0f} s)")
    for verdict in one.verdicts:
        print(f"  - {verdict.claim.text} ({verdict.claim.source})")
        said = (
            f"    {verdict.claim.statistic}: {verdict.measured}, wanted {verdict.claim.criterion}"
        )
        print(said)
        print(f"    {verdict.outcome}" + (f": {verdict.reason}" if verdict.reason else ""))


def _plain(one: Any) -> dict[str, Any]:
    rows = [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in verdict.row().items()}
        for verdict in one.verdicts
    ]
    return {
        "experiment": one.experiment.name,
        "scale": one.scale,
        "seed": one.seed,
        "folder": str(one.folder),
        "verdicts": rows,
    }
