"""`polycode check`: run the conformance kit on a plugin."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from typing import Any

from polycode_plugins.commands.output import print_result
from polycode_plugins.errors import PluginError
from polycode_plugins.files.guards import made_from
from polycode_plugins.plugins import Kind

#: Kinds with a contract to check; an experiment has claims of its own.
CHECKED: tuple[Kind, ...] = ("adapters", "metrics", "explainers")


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    check = commands.add_parser(
        "check",
        help="check that a plugin keeps its contract",
        description="Run the conformance checks on a plugin. Exit status 0 when at least one ran "
        "and none failed, 1 otherwise.",
        examples=["polycode check spectrum"],
    )
    check.set_defaults(run=run)
    check.add_argument(
        "plugin",
        metavar="NAME|MODULE:OBJECT",
        help="an installed plugin, or a case (or a function that makes one), or a metric or "
        "explainer class that needs no settings",
    )
    check.add_argument(
        "--kind",
        choices=[kind.removesuffix("s") for kind in CHECKED],
        help="where a name is of two kinds",
    )
    check.add_argument("--json", action="store_true", help="print the outcomes as JSON")


def run(options: argparse.Namespace) -> int:
    """Check, print, and say by the status whether all is well."""
    from polycode_plugins import testing

    report = testing.run(find_case(options.plugin, options.kind), options.plugin)
    print_result(json.dumps(report.to_dict(), indent=1) if options.json else str(report))
    return 0 if report.ok else 1


def find_case(name: str, kind: str | None = None) -> Any:
    """The case of an installed plugin, or of an object given as `module:object`.

    Raises:
        PluginError: for what does not exist, does not import, or needs a case and has none.
    """
    from polycode_plugins import plugins

    kinds = [k for k in CHECKED if kind is None or k == f"{kind}s"]
    known = [
        p
        for k in kinds
        for p in plugins.find(k)
        if name in (p.reference, f"{p.distribution}:{p.name}")
    ]
    if len(known) > 1:
        raise PluginError(
            f"{name!r} is a plugin of several kinds; say which with --kind "
            + " or --kind ".join(p.kind.removesuffix("s") for p in known)
        )
    if known:
        made = plugins.load_case(known[0])
        return case_of(
            plugins.load(known[0].kind, known[0].reference) if made is None else made, name
        )
    if ":" in name:
        return case_of(_imported(name), name)
    for k in kinds:
        try:
            plugins.get(k, name)
        except PluginError as error:
            if "did you mean" in str(error) or "two distributions" in str(error):
                raise
    *others, last = [k.removesuffix("s") for k in kinds]
    wanted = f"{', '.join(others)} or {last}" if others else last
    raise PluginError(
        f"no {wanted} is called {name!r}; "
        "'polycode plugins' lists them, and a case is given as MODULE:OBJECT"
    )


def case_of(thing: Any, name: str) -> Any:
    """A case from a case, a function that makes one, or a plugin that needs no more than itself."""
    from polycode_plugins.adapters.base import Adapter
    from polycode_plugins.explainers.base import Explainer
    from polycode_plugins.metrics.base import Metric
    from polycode_plugins.testing import AdapterCase, ExplainerCase, MetricCase

    cases = (AdapterCase, MetricCase, ExplainerCase)
    if isinstance(thing, cases):
        return thing
    if isinstance(thing, type) and issubclass(thing, Metric):
        return MetricCase(make=thing)
    if isinstance(thing, type) and issubclass(thing, Explainer):
        return ExplainerCase(make=thing)
    if isinstance(thing, type) and issubclass(thing, Adapter):
        raise PluginError(
            f"to check the adapter {name!r} a small model is needed: declare an AdapterCase in the "
            f"entry-point group polycode_plugins.cases under 'adapter.{thing.name}', or give one "
            "as MODULE:OBJECT"
        )
    if callable(thing):
        try:
            made = thing()
        except Exception as error:  # somebody's function may raise anything
            what = f"{name!r}, called without arguments, makes no case"
            raise PluginError(made_from(what, error)) from error
        if isinstance(made, cases):
            return made
    raise PluginError(
        f"{name!r} is a {type(thing).__name__} and makes no case; give an AdapterCase, MetricCase "
        "or ExplainerCase of polycode_plugins.testing"
    )


def _imported(name: str) -> Any:
    from polycode_plugins.plugins import cause

    module, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as python -m does: a module of one's own, beside the shell
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # somebody's module may raise anything while it is imported
        raise PluginError(
            f"{name!r} is no installed plugin and does not import: {cause(error)}; give the name "
            "of a plugin ('polycode plugins' lists them) or MODULE:OBJECT"
        ) from error
    return found
