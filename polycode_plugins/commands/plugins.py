"""The command `polycode plugins`."""

from __future__ import annotations

import argparse
import json
import warnings
from typing import Any

from polycode_plugins.commands.arguments import say
from polycode_plugins.commands.output import print_result
from polycode_plugins.errors import PolycodeWarning
from polycode_plugins.files.guards import shown


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "plugins",
        help="list adapters, metrics and explainers",
        description="List the installed plugins. Each is imported in a process of its own to see "
        "whether it works.",
        examples=["polycode plugins --no-import"],
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    parser.add_argument(
        "--no-import", action="store_true", help="read metadata only: faster, finds nothing broken"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from polycode_plugins import plugins

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PolycodeWarning)  # said below
        found = [plugin for kind in plugins.KINDS for plugin in plugins.find(kind)]
    broken = {} if options.no_import else plugins.broken(found)
    listed = [
        {
            "kind": p.kind.removesuffix("s"),
            "name": p.reference,
            "distribution": p.distribution,
            "version": p.version,
            "target": p.target,
            "standing": p.standing,
            "broken": broken.get((p.kind, p.distribution, p.name)),
        }
        for p in found
    ]
    for name, why in plugins.unreadable().items():
        why = f"its metadata cannot be read ({shown(why)}); reinstall it"
        say(f"not listed: {shown(name)}, since {why}")
    if options.json:
        print_result(json.dumps(listed, indent=1))
        return 0
    for kind in plugins.KINDS:
        rows = [p for p in listed if p["kind"] == kind.removesuffix("s")]
        print(f"{kind}:" + ("" if rows else " none"))
        broad = max((len(shown(str(row["name"]))) for row in rows), default=0)
        for row in rows:
            note = "" if row["standing"] == "active" else f"  [{row['standing']}]"
            origin = shown(f"{row['distribution']} {row['version']}")
            print(f"  {shown(str(row['name'])):<{broad}}  {origin}{note}")
            if row["broken"]:
                print(f"    broken: {shown(str(row['broken']))}")
    return 0
