"""The command `polycode`.

Results go to standard output (`--json` where a program may read them), progress and messages to
standard error. A user's mistake is one sentence and exit status 2, never a traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polycode_plugins._version import __version__
from polycode_plugins.errors import DataError, PluginError, PolycodeError, near
from polycode_plugins.guards import shown

if TYPE_CHECKING:
    from polycode_plugins.analysis import Analysis


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
        lost = run is _analyze and options.out is None
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

    analyze = commands.add_parser(
        "analyze",
        help="compute metrics over the sites of a model on data",
        description="Stream data through a model once and compute metrics at its sites. Without "
        "arguments it analyses the embedded tiny GPT-2 on the embedded texts.",
    )
    analyze.set_defaults(run=_analyze)
    add_model(analyze)
    add_data(analyze)
    analyze.add_argument(
        "--metrics", default="spectrum", help="names, comma-separated (default: %(default)s)"
    )
    analyze.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="METRIC.SETTING=VALUE",
        help="a setting of a metric, for example spectrum.fit=huber; may be repeated",
    )
    analyze.add_argument(
        "--out", type=Path, help="folder for the results and the report (default: only print)"
    )
    analyze.add_argument("--fresh", action="store_true", help="replace a finished run in --out")
    analyze.add_argument("--no-report", action="store_true", help="write no report.html")
    analyze.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    analyze.add_argument(
        "--train-mode", action="store_true", help="leave dropout and the like as the model has them"
    )
    analyze.add_argument("--json", action="store_true", help="print the table as JSON")
    analyze.add_argument("--quiet", action="store_true", help="no progress bars")

    sites = commands.add_parser("sites", help="list the sites of a model")
    sites.set_defaults(run=_sites)
    add_model(sites)
    sites.add_argument("--json", action="store_true", help="print them as JSON")

    plugins = commands.add_parser(
        "plugins",
        help="list adapters, metrics and explainers",
        description="List the installed plugins. Each is imported in a process of its own to see "
        "whether it works.",
    )
    plugins.set_defaults(run=_plugins)
    plugins.add_argument("--json", action="store_true", help="print them as JSON")
    plugins.add_argument(
        "--no-import", action="store_true", help="read metadata only: faster, finds nothing broken"
    )

    report = commands.add_parser("report", help="write the report of a finished run or comparison")
    report.set_defaults(run=_report)
    report.add_argument("folder", type=Path, help="a run's folder")
    report.add_argument("--out", type=Path, help="default: report.html in the folder")

    from polycode_plugins import cli_check, cli_reproduce
    from polycode_plugins.cli_compare import add_commands

    add_commands(commands)
    cli_check.add(commands)
    cli_reproduce.add(commands)

    merge = commands.add_parser("merge", help="join runs over disjoint parts of the data")
    merge.set_defaults(run=_merge)
    merge.add_argument("folders", type=Path, nargs="+", help="the runs' folders")
    merge.add_argument("--out", type=Path, required=True, help="folder for the joined run")
    merge.add_argument("--no-report", action="store_true", help="write no report.html")
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """The arguments that name a model and its sites."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        help="a name (gpt2-xl, resnet18) or a local folder (default: tiny-gpt2); torchvision's "
        "have random weights unless --option weights=DEFAULT",
    )
    group.add_argument("--adapter", help="by default the one that claims the model")
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the adapter, for example device=cuda or weights=DEFAULT",
    )
    group.add_argument(
        "--sites",
        action="append",
        metavar="GLOB",
        help="sites to read: '*' within a dotted part, '**' across, '!glob' leaves out; may be "
        "repeated (default: the adapter's)",
    )


def add_data(parser: argparse.ArgumentParser, *, shards: bool = True) -> None:
    """The arguments that say which data are read, and how; `--shard` is hidden without `shards`."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--text",
        "--images",
        "--data",
        dest="data",
        metavar="SOURCE",
        help="text: a file, a folder, .jsonl, hf:NAME; images: a folder, cifar10, or "
        "moving-dot[:FRAMES[:RADIUS]], a dot that goes round; default: the embedded data",
    )
    group.add_argument(
        "--text-field",
        default="text",
        help="field with the text in JSON lines or a data set (default: text)",
    )
    group.add_argument("--context", type=int, default=64, help="tokens per window (default: 64)")
    group.add_argument("--batch-size", type=int, default=16, help="default: 16")
    group.add_argument("--limit", type=int, help="read at most this many windows or images")
    group.add_argument(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="read every N-th row from row I (default: 0/1, all)" if shards else argparse.SUPPRESS,
    )
    group.add_argument(
        "--include-special",
        action="store_true",
        help="let special tokens into the statistics",
    )


def _analyze(options: argparse.Namespace) -> int:
    from polycode_plugins.driver import analyze

    analysis = analyze(
        options.model,
        options.data,
        _metrics(options.metrics, options.set),
        options.sites,
        adapter=options.adapter,
        seed=options.seed,
        batch_size=options.batch_size,
        context=options.context,
        limit=options.limit,
        shard=_shard(options.shard),
        include_special=options.include_special,
        text_field=options.text_field,
        train_mode=options.train_mode,
        out=options.out,
        fresh=options.fresh,
        progress=False if options.quiet else None,
        command=options.command_line,
        **assignments(options.option, "--option"),
    )
    if int(os.environ.get("RANK", "0")):
        return 0  # one of several processes: the first one speaks
    _print_table(analysis, as_json=options.json)
    from polycode_plugins.report.content import doubts

    for label, sentences in doubts(analysis).items():
        for sentence in sentences:
            say(shown(f"{label}: {sentence}"))
    if analysis.run["model"].get("init_seed") is not None:
        say(f"{options.model} had random weights: --option weights=DEFAULT loads trained ones")
    if options.out is not None and not options.no_report:
        from polycode_plugins.report.together import write_folder

        report = options.out / "report.html"
        path, left_out = write_folder(options.out, report, analysis=analysis)
        say(f"report: {path}" + (f" ({left_out})" if left_out else ""))
    return 0


def _sites(options: argparse.Namespace) -> int:
    from polycode_plugins.adapters.undisturbed import undisturbed
    from polycode_plugins.loading import load

    adapter = load(options.model, options.adapter, **assignments(options.option, "--option"))
    with undisturbed(adapter.model):
        sites = adapter.resolve(options.sites or ["**"], adapter.example())
    if options.json:
        print(json.dumps([{"site": s.name, "width": s.width, "axes": s.axes} for s in sites]))
    else:
        for site in sites:
            print(shown(site.name) + ("" if site.width is None else f"\t{site.width}"))
    return 0


def _plugins(options: argparse.Namespace) -> int:
    from polycode_plugins import plugins

    listed = []
    for kind in plugins.KINDS:
        found = plugins.find(kind)
        broken = {} if options.no_import else plugins.broken(found)
        listed += [
            {
                "kind": kind.removesuffix("s"),
                "name": p.reference,
                "distribution": p.distribution,
                "version": p.version,
                "target": p.target,
                "standing": p.standing,
                "broken": broken.get((p.distribution, p.name)),
            }
            for p in found
        ]
    for name, why in plugins.unreadable().items():
        why = f"its metadata cannot be read ({shown(why)}); reinstall it"
        say(f"not listed: {shown(name)}, since {why}")
    if options.json:
        print(json.dumps(listed, indent=1))
        return 0
    for kind in plugins.KINDS:
        rows = [p for p in listed if p["kind"] == kind.removesuffix("s")]
        print(f"{kind}:" + ("" if rows else " none"))
        for row in rows:
            note = "" if row["standing"] == "active" else f"  [{row['standing']}]"
            origin = shown(f"{row['distribution']} {row['version']}")
            print(f"  {shown(str(row['name'])):<20} {origin}{note}")
            if row["broken"]:
                print(f"    broken: {shown(str(row['broken']))}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from polycode_plugins.report.together import write_folder

    path = options.out if options.out is not None else options.folder / "report.html"
    written, left_out = write_folder(options.folder, path)
    if left_out:
        say(left_out)
    print(written)
    return 0


def _merge(options: argparse.Namespace) -> int:
    from polycode_plugins import storage
    from polycode_plugins.analysis import Analysis

    if (options.out / storage.RUN).exists():
        raise DataError(f"{str(options.out)!r} holds a run already; give a new folder")
    parts = [Analysis.load(folder) for folder in options.folders]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.merge(part)
    joined.save(options.out)
    if not options.no_report:
        say(f"report: {joined.report(options.out / 'report.html')}")
    print(options.out)
    return 0


def _metrics(names: str, settings: Sequence[str]) -> list[Any]:
    """Metric objects for `--metrics` with the settings of `--set`."""
    from polycode_plugins.statistics import make_metric

    wanted = [n.strip() for n in names.split(",") if n.strip()]
    if not wanted:
        raise PluginError("--metrics names no metric; 'polycode plugins' lists them")
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
            raise PluginError(
                f"--set {setting!r} is for {metric!r}, which is none of the metrics of this run"
                f"{near(metric, wanted)}; add it with --metrics {','.join([*wanted, metric])}"
            )
        given[metric][field] = _value(value)
    return [make_metric(name, fields) for name, fields in given.items()]


def assignments(texts: Sequence[str], flag: str) -> dict[str, Any]:
    """The values of a flag that is NAME=VALUE and may be repeated."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise PluginError(f"{flag} {text!r} is not NAME=VALUE")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    """A setting's value: JSON where it is JSON, a tuple where it has commas, else the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return tuple(_value(part) for part in text.split(",")) if "," in text else text
    return tuple(value) if isinstance(value, list) else value


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not slash or not index.isdigit() or not count.isdigit():
        raise DataError(f"--shard {text!r} is not I/N, for example 0/4")
    return int(index), int(count)


def _print_table(analysis: Analysis, *, as_json: bool) -> None:
    """One table a metric, of its headline; everything else is in the files."""
    if as_json:
        print(analysis.to_dataframe().to_json(orient="records"))
        return
    import pandas as pd

    for label in analysis.metrics:
        found = {site.name: analysis[site.name, label] for site in analysis.sites}
        rows = pd.DataFrame([result.scalars() for result in found.values()], index=list(found))
        few = next(iter(found.values())).headline or rows.select_dtypes("number").columns
        rows = rows[[c for c in few if c in rows]]
        width = shutil.get_terminal_size((100, 24)).columns
        print(f"\n{label}")
        print(rows.to_string(float_format=lambda v: f"{v:.4g}", na_rep="-", line_width=width))
    print()


def say(text: str) -> None:
    """A message for people, on standard error."""
    print(text, file=sys.stderr)
