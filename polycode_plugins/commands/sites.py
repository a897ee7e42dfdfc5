"""The command `polycode sites`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from polycode_plugins.commands.arguments import adapter_options, add_model
from polycode_plugins.commands.output import print_result
from polycode_plugins.files.guards import shown


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser("sites", help="list the sites of a model")
    parser.set_defaults(run=run)
    add_model(parser)
    parser.add_argument("--json", action="store_true", help="print them as JSON")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    from polycode_plugins.adapters.undisturbed import undisturbed
    from polycode_plugins.loading import load

    adapter = load(options.model, options.adapter, **adapter_options(options))
    with undisturbed(adapter.model):
        sites = adapter.resolve(options.sites or ["**"], adapter.example())
    if options.json:
        print_result(
            json.dumps([{"site": s.name, "width": s.width, "axes": s.axes} for s in sites])
        )
    else:
        for site in sites:
            print(shown(site.name) + ("" if site.width is None else f"\t{site.width}"))
    return 0
