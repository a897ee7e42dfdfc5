"""The command `polycode analyze`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polycode_plugins.commands.arguments import (
    adapter_options,
    add_data,
    add_model,
    add_speech,
    installed,
    note_pictures,
    opening_of,
    reading_of,
    say,
    value_of,
)
from polycode_plugins.commands.output import print_result
from polycode_plugins.errors import PluginError, near
from polycode_plugins.files.guards import shown

if TYPE_CHECKING:
    from polycode_plugins.runs.analysis import Analysis


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "analyze",
        help="compute metrics over the sites of a model on data",
        description="Stream data through a model once and compute metrics at its sites. Without "
        "arguments it analyses the embedded tiny GPT-2 on the embedded texts.",
        examples=[
            "polycode analyze --model gpt2 --text my-texts.jsonl --sites 'blocks.*.hook_resid_post'"
            " --out my-run",
            "polycode analyze --model resnet18 --option weights=DEFAULT --images my-photos "
            "--set spectrum.fit=huber",
        ],
    )
    parser.kinds = ("adapters", "metrics")
    parser.set_defaults(run=run, opening=lambda options: opening_of("analysing", options))
    add_model(parser)
    add_data(parser)
    parser.add_argument(
        "--metrics", default="spectrum", help="names, comma-separated (default: %(default)s)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="METRIC.SETTING=VALUE",
        help="a setting of a metric, for example spectrum.fit=huber; may be repeated",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for the results and the report (default: only print)"
    )
    parser.add_argument("--fresh", action="store_true", help="replace a finished run in --out")
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="what this process may take in all, for example 8GiB (default: what the machine has); "
        "statistics that do not fit take several passes over the data, with --out",
    )
    parser.add_argument(
        "--target-error",
        type=float,
        metavar="ERROR",
        help="end when the exponent is known to within this at every site, for example 0.02",
    )
    parser.add_argument("--no-report", action="store_true", help="write no report.html")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--train-mode", action="store_true", help="leave dropout and the like as the model has them"
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    add_speech(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit status."""
    installed("metrics", *named(options.metrics))
    installed("adapters", options.adapter)
    from polycode_plugins.runs.analyze import analyze
    from polycode_plugins.runs.stopping import sentences

    said = ""
    if options.out is not None and not options.no_report and not options.quiet:
        note_pictures()
    analysis = analyze(
        options.model,
        options.data,
        metrics_of(options.metrics, options.set),
        options.sites,
        adapter=options.adapter,
        **reading_of(options),
        train_mode=options.train_mode,
        out=options.out,
        fresh=options.fresh,
        memory=options.memory,
        target_error=options.target_error,
        progress=not options.quiet,
        command=options.command_line,
        **adapter_options(options),
    )
    if int(os.environ.get("RANK", "0")):
        return 0  # one of several processes: the first one speaks
    if options.out is not None and not options.no_report:
        from polycode_plugins.files.storage import REPORT
        from polycode_plugins.report.folder import write_folder

        # Before anything is printed: who reads our output may have gone.
        path, left_out = write_folder(options.out, options.out / REPORT, analysis=analysis)
        said = f"report: {path}" + (f" ({left_out})" if left_out else "")
    _print_table(analysis, as_json=options.json)
    if analysis.run.get("passes"):
        say(
            f"{analysis.run['passes']} passes over the data: the statistics of all sites did not "
            "fit into memory together"
        )
    for sentence in sentences(analysis.run):
        say(shown(sentence))
    for note in analysis.run["model"].get("notes") or ():
        say(shown(f"model: {note}"))
    for warning in analysis.warnings:
        say(shown(f"{warning.metric}: {warning}"))
    if analysis.run["model"].get("init_seed") is not None:
        say(f"{options.model} had random weights: --option weights=DEFAULT loads trained ones")
    if said:
        say(said)
    return 0


def named(names: str) -> list[str]:
    """The metrics that `--metrics` names."""
    wanted = [n.strip() for n in names.split(",") if n.strip()]
    if not wanted:
        raise PluginError("--metrics names no metric; 'polycode plugins' lists them")
    return wanted


def metrics_of(names: str, settings: Sequence[str]) -> list[Any]:
    """Metric objects for `--metrics` with the settings of `--set`."""
    from polycode_plugins.metrics.names import make_metric

    wanted = named(names)
    given: dict[str, dict[str, Any]] = {name: {} for name in wanted}
    for setting in settings:
        path, _, value = setting.partition("=")
        metric, _, field = path.rpartition(".")
        if not metric or not field or not value:
            raise PluginError(
                f"--set {setting!r} is not METRIC.SETTING=VALUE for one of the metrics "
                f"{', '.join(wanted)}; write for example --set spectrum.fit=huber"
            )
        if metric not in given:
            add = f"; add it with --metrics {','.join([*wanted, metric])}"
            raise PluginError(
                f"--set {setting!r} is for {metric!r}, which is none of the metrics of this run"
                f"{near(metric, wanted) or add}"
            )
        given[metric][field] = value_of(value)
    return [make_metric(name, fields) for name, fields in given.items()]


def _print_table(analysis: Analysis, *, as_json: bool) -> None:
    """One table a metric, of its headline; everything else is in the files."""
    if as_json:
        records = json.loads(analysis.to_dataframe().to_json(orient="records"))
        for record in records:
            for label, result in analysis[record["site"]].items():
                record[f"{label}.warnings"] = list(result.warnings)
        print_result(json.dumps(records))
        return
    width = shutil.get_terminal_size((100, 24)).columns
    for label in analysis.metrics:
        print(f"\n{label}")
        print(analysis.headline(label, width=width).to_string(na_rep="-"))
    print()
