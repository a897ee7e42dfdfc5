"""The command `polycode sites`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from polycode_plugins.commands.arguments import (
    adapter_options,
    add_model,
    add_speech,
    installed,
    opening_of,
)
from polycode_plugins.commands.output import print_result
from polycode_plugins.files.guards import shown


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "sites",
        help="list the sites of a model",
        examples=["polycode sites --model gpt2 --sites 'blocks.*.hook_resid_post'"],
    )
    parser.kinds = ("adapters",)
    parser.set_defaults(
        run=run, opening=lambda options: opening_of("reading the sites of", options)
    )
    add_model(parser)
    add_speech(parser, settings=False)
    parser.add_argument("--json", action="store_true", help="print them as JSON")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    installed("adapters", options.adapter)
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
