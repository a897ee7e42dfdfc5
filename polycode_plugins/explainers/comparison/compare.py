"""`compare`: explain and score neurons, projections and other directions in one way."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from polycode_plugins import plugins
from polycode_plugins.adapters.base import Adapter
from polycode_plugins.data_options import DataOptions
from polycode_plugins.devices import on_host
from polycode_plugins.errors import DataError, PluginError, PolycodeError
from polycode_plugins.explainers.base import Explainer, UnitRecords
from polycode_plugins.explainers.comparison.files import locked, refuse_finished, write
from polycode_plugins.explainers.comparison.outcome import RANDOM, TRAINED, ComparedUnit, Comparison
from polycode_plugins.explainers.comparison.spending import spending, spent_by
from polycode_plugins.explainers.costs import Spent
from polycode_plugins.explainers.records.gathering import check_kinds, fewer, gather
from polycode_plugins.explainers.records.one_pass import Signs
from polycode_plugins.explainers.records.protocols import Protocol, protocol_named
from polycode_plugins.explainers.records.unit_records import Shape
from polycode_plugins.explainers.scoring.evaluation import Scoring, evaluate
from polycode_plugins.explainers.scoring.judging import SimulatingJudge
from polycode_plugins.explainers.units.base import Units
from polycode_plugins.explainers.units.random_weights import random_weights
from polycode_plugins.files import guards, storage
from polycode_plugins.files.paths import given
from polycode_plugins.files.provenance import environment
from polycode_plugins.files.weights import identified
from polycode_plugins.loading import load
from polycode_plugins.progress import bar

#: Which sign of a unit is explained unless it is said: the paper takes units as they are.
_SIGNS: dict[str, Signs] = {"marshall-kirchner": "positive"}


#: Options of `compare` that are not the adapter's.
_OURS = frozenset(field.name for kind in (Scoring, DataOptions) for field in fields(kind))


@on_host()
def compare(
    model: Any = None,
    texts: Any = None,
    sites: Sequence[str] | str | None = None,
    *,
    units: Sequence[str | Units] | str | Units = ("neuron", "projection"),
    explainer: str | Explainer = "token-lookup",
    protocol: str | Protocol = "openai",
    n_units: int | Sequence[int] = 50,
    seed: int = 0,
    adapter: str | type[Adapter] | None = None,
    explainer_options: Mapping[str, Any] | None = None,
    signs: Signs | None = None,
    control: bool = False,
    tokenizer: Any = None,
    out: str | Path | None = None,
    fresh: bool = False,
    progress: bool | None = None,
    command: str | None = None,
    **options: Any,
) -> Comparison:
    """Explain units of several kinds and score the explanations, with floors and a ceiling beside.

    Args:
        model: a live model, a name, a folder, an adapter, or None for the embedded tiny GPT-2.
        texts: what the adapter reads texts from; None is its embedded default.
        sites: names or globs; when None those of the autoencoders, else the adapter's default.
        units: kinds ("neuron", "projection", "rotated", "matched", "covariance", "component",
            "independent") and directions of one's own (`explainers.directions`), which are read at
            every site, and autoencoders (`explainers.read_autoencoder`), which are read at their
            own. "projection:rademacher" draws projections from that distribution, see
            `explainers.projections`, and "covariance:whitened" those directions of that colouring,
            see `explainers.covariance_directions`; two of one kind are two comparisons. "rotated"
            and "matched" units belong to one neuron each and are compared with it.
        explainer: the name of a plugin or an Explainer.
        protocol: "openai" (5 top texts explain; 5 top and 5 random ones score),
            "marshall-kirchner" (the 10 top texts, even ranks explain, odd ones score), or "fair"
            (OpenAI's, and 5 texts by quantile in each split and 5 hard negatives to score on).
        n_units: of each kind at each site; or the numbers of the neurons or features. Kinds are
            compared with as many units each, so with neurons or components no kind has more than
            the site has neurons; of directions and features so many are drawn.
            `run["warnings"]` says where that is less than was asked for, or than there are.
        seed: of everything that draws.
        adapter: the adapter's name; by default the one that claims the model.
        explainer_options: what the explainer is made with, where it is named.
        signs: "fixed" explains the sign of each unit whose explaining texts are higher, "positive"
            takes units as they are, "both" explains both; by default what the protocol had,
            "positive" for "marshall-kirchner", and else "fixed".
        control: repeat everything with the model's weights in random order.
        tokenizer: names the tokens, where the adapter has none.
        out: folder for comparison.json, units.parquet and records.safetensors, and for the answers
            of an explainer that is named and keeps them; it may hold the run of an analysis.
        fresh: replace the comparison in `out`.
        progress: show progress on standard error; by default when that is a terminal.
        command: recorded with the run.
        options: fields of `explainers.Scoring` (how explanations are scored: simulator, judge,
            calibrate, floors), fields of `pc.DataOptions` (how texts are read: context, limit,
            batch_size, include_special, text_field), and what else the adapter takes.

    An explainer that is named is closed in the end, one that is given stays open.

    Raises:
        PolycodeError: one of its kinds, for everything that cannot be done.
    """
    chosen = protocol_named(protocol)
    kinds = check_kinds(units)
    scoring = Scoring(**Scoring.among(options))
    reading = DataOptions(**DataOptions.among(options), seed=seed)
    of_adapter = {k: v for k, v in options.items() if k not in _OURS}
    if reading.shard != (0, 1):
        raise DataError("shard does not apply here: a unit's records come from all of the texts")
    signs = signs if signs is not None else _SIGNS.get(chosen.name, "fixed")
    if isinstance(n_units, int) and n_units < 1:
        raise DataError(f"n_units is {n_units}; give the number of units of each kind")
    with asking(explainer, explainer_options, out, fresh=fresh, progress=progress) as (
        made,
        folder,
    ):
        before = spent_by(made)
        source = load(model, adapter, **of_adapter)
        described = identified(source.describe(), source.model)
        asked = replace(scoring, simulator=scoring.simulator_of(made))
        found: list[ComparedUnit] = []
        directions: dict[tuple[str, str, str], Units] = {}
        warnings: list[str] = []
        for weights in (TRAINED, RANDOM) if control else (TRAINED,):
            with random_weights(source.model, seed=seed) if weights == RANDOM else nullcontext():
                gathered, rows = gather(
                    source,
                    texts,
                    sites,
                    kinds,
                    n_units,
                    protocol=chosen,
                    signs=signs,
                    options=reading,
                    seed=seed,
                    tokenizer=tokenizer,
                    progress=progress,
                )
            notes = [note for at in gathered for note in at.notes]
            warnings += [n if weights == TRAINED else f"{n} (random weights)" for n in notes]
            if isinstance(n_units, int):
                warnings += [w for w in fewer(gathered, kinds, n_units) if w not in warnings]
            warnings += [w for at in gathered for w in at.doubts if w not in warnings]
            total = sum(len(at.records) for at in gathered)
            with bar("explaining", "unit", total, progress) as shown:
                for depth, at in enumerate(gathered):
                    found += scored(at.records, depth, made, asked, seed=seed, weights=weights)
                    directions |= {(at.site.name, g.kind, weights): g for g in at.units}
                    shown.update(len(at.records))
        run = run_record(
            made,
            asked,
            before,
            warnings,
            command=command,
            model=described,
            data=_described(texts),
            rows=rows.to_json(),
            seed=seed,
            options=reading.lasting(),
            protocol=asdict(chosen),
            signs=signs,
        )
        comparison = Comparison(tuple(found), run, directions)
        if folder is not None:
            write(comparison, folder)
        return comparison


def scored(
    units: Sequence[tuple[UnitRecords, Shape]],
    depth: int,
    explainer: Explainer,
    scoring: Scoring,
    *,
    seed: int,
    weights: str = TRAINED,
) -> list[ComparedUnit]:
    """The units of one site, explained and scored by `scoring`, whose simulator is made."""
    evaluations = evaluate([records for records, _ in units], explainer, scoring, seed=seed)
    return [
        ComparedUnit(depth, weights, evaluation, shape)
        for evaluation, (_, shape) in zip(evaluations, units, strict=True)
    ]


def run_record(
    explainer: Explainer,
    scoring: Scoring,
    before: Spent | None,
    warnings: Sequence[str],
    **about: Any,
) -> dict[str, Any]:
    """What is written of a comparison: what it is `about`, who was asked, how, and what it cost."""
    simulator = scoring.simulator_of(explainer)
    judge = (explainer.judge() or SimulatingJudge(simulator)) if scoring.judge else None
    told = [*warnings, *(w for w in explainer.warnings() if w not in warnings)]
    spent = spending(explainer, before)
    return {
        **environment(),
        **about,
        "calibration": scoring.calibrate,
        "explainer": explainer.describe(),
        "simulator": simulator.describe(),
        "explanations": scoring.explanations,
        "judge": judge.describe() if judge is not None else None,
        **({"warnings": told} if told else {}),
        **({"spent": spent} if spent is not None else {}),
    }


@contextmanager
def asking(
    explainer: str | Explainer,
    options: Mapping[str, Any] | None,
    out: str | Path | None,
    *,
    fresh: bool,
    progress: bool | None,
) -> Iterator[tuple[Explainer, Path | None]]:
    """The explainer, which is closed in the end where it was named, and the folder, locked.

    Raises:
        StateError: for a folder that holds a finished comparison, unless `fresh`.
        PluginError: see `make_explainer`.
    """
    folder = None if out is None else given(out)
    if folder is not None and not fresh:
        refuse_finished(folder)
    made = make_explainer(explainer, options, folder=folder, progress=progress)
    try:
        with nullcontext() if folder is None else locked(folder):
            yield made, folder
    finally:
        if made is not explainer:
            made.close()


def make_explainer(
    explainer: str | Explainer,
    options: Mapping[str, Any] | None = None,
    *,
    folder: Path | None = None,
    progress: bool | None = None,
) -> Explainer:
    """The explainer called so, made with `options`, or the one given.

    Args:
        explainer, options: see `compare`.
        folder: where an explainer that takes a `store` has it unless `options` say otherwise.
        progress: for one that takes `progress`; None is True on a terminal.

    Raises:
        PluginError: for an unknown or broken plugin, options it does not take, or no Explainer.
    """
    if isinstance(explainer, Explainer):
        if options:
            raise PluginError("this explainer is made already; give its options where it is made")
        return explainer
    factory = plugins.load("explainers", explainer)
    known = {"progress": sys.stderr.isatty() if progress is None else progress}
    known |= {} if folder is None else {"store": folder / storage.ANSWERS}
    usual = {name: value for name, value in known.items() if _takes(factory, name)}
    try:
        with plugins.contained(f"the explainer {explainer!r}"):
            made = factory(**{**usual, **(options or {})})
    except PolycodeError:
        raise
    except Exception as error:  # a constructor may raise anything at values it does not expect
        if not options:
            raise
        if "unexpected keyword argument" in str(error):
            what = f"the explainer {explainer!r} does not take this option"
        else:
            what = f"the explainer {explainer!r} does not take these options ({dict(options)})"
        if "takes no arguments" in str(error):
            raise PluginError(f"{what}; it has none, so leave them out") from error
        raise PluginError(guards.made_from(what, error)) from error
    if not isinstance(made, Explainer):
        raise PluginError(
            f"the plugin {explainer!r} makes a {type(made).__name__}, not an Explainer"
        )
    return made


def _takes(factory: Any, option: str) -> bool:
    try:
        return option in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # written in C
        return False


def _described(texts: Any) -> str:
    if texts is None:
        return "embedded"
    return str(texts) if isinstance(texts, str | Path) else type(texts).__name__
