"""The commands `polycode compare` and `polycode explain`."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polycode_plugins.commands.arguments import (
    adapter_options,
    add_data,
    add_model,
    add_speech,
    assignments,
    installed,
    note_pictures,
    opening_of,
    reading_of,
    say,
)
from polycode_plugins.commands.exchange import (
    add_autoencoders,
    add_others,
    autoencoders_of,
    exported,
    records_of,
)
from polycode_plugins.commands.output import print_result
from polycode_plugins.errors import DataError
from polycode_plugins.files.guards import shown, whole_number

if TYPE_CHECKING:
    from polycode_plugins.explainers.comparison.outcome import Comparison
    from polycode_plugins.explainers.costs import Cost
    from polycode_plugins.explainers.units.base import Units

_EXPLAINED = 10  # units that `explain` explains unless it is told
#: Flags for settings of the explainer that many runs need, {flag: (setting, metavar, help)}.
_SETTINGS = {
    "--base-url": (
        "base_url",
        "URL",
        "any server with OpenAI's protocol, or local:FOLDER for a model of Hugging Face in this "
        "process (default: OpenAI's)",
    ),
    "--explainer-model": ("model", "NAME", "the model that explains (default: gpt-4o-mini)"),
    "--simulator-model": (
        "simulator_model",
        "NAME",
        "the model that simulates by the explanation (default: the one that judges)",
    ),
    "--simulator-url": ("simulator_url", "URL", "where it is, with its key in SIMULATOR_API_KEY"),
    "--judge-model": (
        "judge_model",
        "NAME",
        "the model that says yes or no by it (default: the one that simulates; where neither is "
        "given, both are the one that explains)",
    ),
    "--judge-url": ("judge_url", "URL", "where it is, with its key in JUDGE_API_KEY"),
    "--reasoning-effort": (
        "reasoning_effort",
        "HOW",
        "how much a model is to think, for those that take it: low, medium, high",
    ),
    "--thought-tokens": (
        "thought_tokens",
        "N",
        "room to think in for every request (default: 4096 for a model that is found to think)",
    ),
    "--prices": (
        "prices",
        "FILE",
        'dollars per million tokens, as JSON or TOML: {"MODEL": {"in": 0.15, "out": 0.6}}',
    ),
    "--budget": (
        "budget",
        "DOLLARS",
        "stop before the answers cost more, with all of them saved; needs --prices",
    ),
}


def add(commands: Any) -> None:
    """Add both to the parser's commands."""
    compare = commands.add_parser(
        "compare",
        help="are neurons or projections easier to explain?",
        description="Explain and score units of several kinds in one way, with floors and a "
        "ceiling beside each score. Without arguments it compares neurons with random projections "
        "of the embedded tiny GPT-2, explained by token look-up, offline.",
        examples=[
            "polycode compare --model gpt2 --sites 'blocks.*.mlp.hook_post' --explainer ngram "
            "--out my-run",
        ],
    )
    compare.kinds = ("adapters", "explainers")
    compare.set_defaults(run=_compare, opening=lambda options: opening_of("comparing", options))
    _add_arguments(compare)
    compare.add_argument(
        "--units",
        default="neuron,projection",
        help="kinds, comma-separated: neuron, projection (or projection:rademacher, "
        "projection:sphere), rotated, matched, covariance (or covariance:whitened), component, "
        "independent (default: %(default)s)",
    )
    compare.add_argument(
        "--n-units",
        type=int,
        default=50,
        help="of each kind at each site, at most as many as it has neurons (default: %(default)s)",
    )
    compare.add_argument(
        "--directions",
        metavar="FILE[:NAME]",
        help="also directions of your own, one a row (probes, steering vectors): .npy, or a tensor "
        "of a .safetensors file",
    )
    add_autoencoders(compare, "also features of")
    compare.add_argument(
        "--control", action="store_true", help="repeat with the weights in random order"
    )
    explain = commands.add_parser(
        "explain",
        help="explain some units",
        description="Explain units of one kind and score the explanations.",
        examples=["polycode explain --sites blocks.3.mlp.hook_post --numbers 3,17,40"],
    )
    explain.kinds = ("adapters", "explainers")
    explain.set_defaults(run=_explain, opening=lambda options: opening_of("explaining", options))
    _add_arguments(explain)
    explain.add_argument(
        "--units",
        default="neuron",
        metavar="KIND",
        help="neuron, projection (or projection:rademacher, projection:sphere), rotated, matched, "
        "covariance (or covariance:whitened), component or independent (default: %(default)s)",
    )
    add_autoencoders(explain, "instead the features of")
    explain.add_argument(
        "--numbers",
        help="the neurons' or features' numbers, comma-separated (default: drawn at random)",
    )
    explain.add_argument(
        "--n-units", type=int, default=_EXPLAINED, help="how many are drawn (default: %(default)s)"
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser, shards=False)
    group = parser.add_argument_group("explaining")
    group.add_argument(
        "--explainer",
        default="token-lookup",
        help="token-lookup, ngram, openai or a plugin's name (default: %(default)s)",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the explainer, for example timeout=600 or body='{\"top_k\": 1}'; may be "
        "repeated",
    )
    group.add_argument(
        "--protocol",
        default="openai",
        help="openai, marshall-kirchner or fair (default: %(default)s)",
    )
    group.add_argument(
        "--signs",
        choices=("fixed", "positive", "both"),
        help="fixed explains the sign of a unit whose explaining texts are higher, positive the "
        "unit as it is, both both (default: positive for marshall-kirchner, else fixed)",
    )
    group.add_argument(
        "--calibrate",
        default="none",
        choices=("none", "linear", "percentile"),
        help="bring simulated activations to the scale of the true ones (default: %(default)s)",
    )
    group.add_argument(
        "--floors",
        help="what each score stands beside, comma-separated, or 'none' "
        "(default: shuffled,empty,constant,token-lookup,oracle)",
    )
    group.add_argument(
        "--judge-only",
        action="store_true",
        help="detection and fuzzing alone, without simulations: far fewer tokens",
    )
    group.add_argument(
        "--draws",
        type=int,
        default=1,
        metavar="N",
        help="explanations of each unit: scores are means over them, and their spread is told "
        "beside that of units (default: %(default)s)",
    )
    group.add_argument(
        "--no-judge", action="store_true", help="no yes-or-no scores: detection, fuzzing"
    )
    group.add_argument(
        "--dry-run", action="store_true", help="count requests, tokens and dollars, send nothing"
    )
    server = parser.add_argument_group("a language model that explains (--explainer openai)")
    for flag, (setting, metavar, text) in _SETTINGS.items():
        kind = {"budget": float, "thought_tokens": int}.get(setting, str)
        server.add_argument(flag, dest=f"of_{setting}", type=kind, metavar=metavar, help=text)
    add_others(parser)
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="folder for the results and the report")
    parser.add_argument("--fresh", action="store_true", help="replace a comparison in --out")
    parser.add_argument("--no-report", action="store_true", help="write no report.html")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    add_speech(parser)


def _check_names(options: argparse.Namespace) -> None:
    installed("explainers", options.explainer)
    installed("adapters", options.adapter)


def _compare(options: argparse.Namespace) -> int:
    _check_names(options)
    kinds: list[str | Units] = [k.strip() for k in options.units.split(",") if k.strip()]
    if options.directions is not None:
        from polycode_plugins.explainers.units.directions import read_directions

        kinds.append(read_directions(options.directions))
    kinds += autoencoders_of(options)
    comparison = _run(options, kinds, options.n_units, control=options.control)
    if comparison is None:
        return 0
    if options.json:
        print_result(comparison.to_dataframe().to_json(orient="records"))
        return 0
    from polycode_plugins.commands.comparison_tables import show

    show(comparison)
    return 0


def _explain(options: argparse.Namespace) -> int:
    _check_names(options)
    numbers: Any = options.n_units
    kinds: list[str | Units] = [*autoencoders_of(options)] or [options.units.strip()]
    if options.numbers:
        if kinds[0] != "neuron" and len(options.sae) != 1:
            raise DataError(
                "--numbers names neurons, or features of one autoencoder; leave it out, or use "
                "--units neuron or one --sae"
            )
        numbers = [whole_number(p.strip()) for p in options.numbers.split(",")]
        if None in numbers:
            raise DataError(f"--numbers {options.numbers!r} is not a list such as 3,17,40")
    single = kinds == ["neuron"] or len(options.sae) == 1
    comparison = _run(
        options, kinds, numbers, control=False, numbered=single and not options.numbers
    )
    if comparison is None:
        return 0
    if options.json:
        print_result(comparison.to_dataframe().to_json(orient="records"))
        return 0
    for unit in comparison:
        made = unit.evaluation
        score = unit.score("correlation")
        floors = ", ".join(
            f"{name} {'undefined' if v is None else format(v, '.2f')}"
            for name, floor in made.floors.items()
            for v in [floor.values["correlation"]]
        )
        said = made.explanation.text or f"no explanation: {made.explanation.reason}"
        print(f"{unit.site}  {unit.name}")
        print(f"  {shown(said)}")
        print(f"  score {'undefined' if score is None else format(score, '.2f')} ({floors})")
    return 0


RUNS = (_compare, _explain)


def _run(
    options: argparse.Namespace,
    kinds: Sequence[str | Units],
    n_units: Any,
    *,
    control: bool,
    numbered: bool = False,
) -> Comparison | None:
    """The comparison that was asked for, written where it was asked; None for a dry run.

    Args:
        options: as they were typed.
        kinds, n_units, control: see `compare`.
        numbered: explain the units that explanations are written of.
    """
    from polycode_plugins.explainers.base import PaidExplainer
    from polycode_plugins.explainers.comparison.compare import compare, make_explainer
    from polycode_plugins.explainers.comparison.dry_run import DryRun
    from polycode_plugins.explainers.comparison.recorded import compare_records
    from polycode_plugins.explainers.comparison.spending import spending_text
    from polycode_plugins.explainers.scoring.floors import FLOORS
    from polycode_plugins.explainers.written import WrittenExplanations
    from polycode_plugins.report.folder import write_folder

    if options.out is not None and not (options.no_report or options.quiet):
        note_pictures()
    reading = reading_of(options)
    if reading.pop("shard") != (0, 1):
        raise DataError("--shard does not apply here: a unit's records come from all of the texts")
    with ExitStack() as stack:
        explainer = make_explainer(
            options.explainer,
            _explainer_options(options),
            folder=_answers(options, stack),
            progress=not (options.quiet or options.dry_run),
        )
        stack.callback(explainer.close)
        if options.explanations is not None:
            explainer = WrittenExplanations(options.explanations, by=explainer)
            if numbered and (numbers := explainer.numbers()) is not None:
                n_units = numbers
        dry = DryRun(explainer) if options.dry_run else None
        floors = FLOORS if options.floors is None else tuple(options.floors.split(","))
        scored: dict[str, Any] = {
            "explainer": dry or explainer,
            "protocol": options.protocol,
            "calibrate": options.calibrate,
            "judge": not options.no_judge,
            "simulate": not options.judge_only,
            "explanations": options.draws,
            "floors": () if floors == ("none",) else floors,
            "out": None if dry else options.out,
            "fresh": options.fresh,
            "progress": not options.quiet,
            "command": options.command_line,
            "seed": reading.pop("seed", options.seed),
        }
        if options.records:
            comparison = compare_records(records_of(options), **scored)
        else:
            comparison = compare(
                options.model,
                options.data,
                options.sites,
                units=kinds,
                n_units=n_units,
                adapter=options.adapter,
                signs=options.signs,
                control=control,
                **scored,
                **reading,
                **adapter_options(options),
            )
        for warning in comparison.run.get("warnings", ()):
            say(f"warning: {shown(warning)}")
        if dry is not None:
            note = explainer.unknown() if isinstance(explainer, PaidExplainer) else ""
            print_result(
                _counted(len(comparison), dry.cost, dry.dollars(dry.cost), options.json, note)
            )
            return None
    if taken := spending_text(comparison.run):
        say(f"answers: {taken}")
    if options.out is not None and not options.no_report:
        report = options.out / "report.html"
        path, left_out = write_folder(options.out, report, comparison=comparison)
        say(f"report: {path}" + (f" ({left_out})" if left_out else ""))
    for written in exported(comparison, options):
        say(written)
    return comparison


def _explainer_options(options: argparse.Namespace) -> dict[str, Any]:
    """What `--set` and the explainer's flags say."""

    said = assignments(options.set, "--set")
    for flag, (setting, _, _) in _SETTINGS.items():
        value = getattr(options, f"of_{setting}")
        if value is not None and setting in said:
            raise DataError(f"{flag} and --set {setting}=... say the same; leave one out")
        if value is not None:
            said[setting] = value
    return said


def _answers(options: argparse.Namespace, stack: ExitStack) -> Path | None:
    """The folder for answers; a dry run reads those that are there, and leaves no file behind."""
    from polycode_plugins.explainers.comparison.files import refuse_finished
    from polycode_plugins.files import storage

    folder: Path | None = options.out
    if options.dry_run and not ((folder or Path()) / storage.ANSWERS).is_file():
        return Path(stack.enter_context(tempfile.TemporaryDirectory()))
    if folder is not None and not options.dry_run:
        storage.prepare(folder) if options.fresh else refuse_finished(folder)
    return folder


def _counted(units: int, cost: Cost, dollars: float | None, as_json: bool, note: str = "") -> str:
    """What a dry run has counted, and what it could not know."""
    if as_json:
        counted = {
            "units": units,
            "requests": cost.requests,
            "stored": cost.stored,
            "prompt_tokens": cost.prompt_tokens,
            "completion_tokens": cost.completion_tokens,
            "dollars": dollars,
            "note": note,
        }
        return json.dumps(counted)
    said = (
        f"{units} units: at most {cost.requests:,} requests, {cost.prompt_tokens:,} tokens sent "
        f"and {cost.completion_tokens:,} received"
    )
    said += f"; {cost.stored:,} more repeat these or are answered already" if cost.stored else ""
    if dollars is not None:
        said += f"; at most ${dollars:,.2f}"
    elif cost.requests:
        said += "; --prices FILE tells what it costs"
    return said + (f"; {note}" if note and cost.requests else "")
