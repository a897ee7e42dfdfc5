"""A comparison of units whose records others made: files of OpenAI's neuron-explainer."""

from __future__ import annotations

import glob
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from polycode_plugins.errors import DataError
from polycode_plugins.explainers.base import Explainer, UnitRecords
from polycode_plugins.explainers.comparison.compare import asking, run_record, scored
from polycode_plugins.explainers.comparison.files import write
from polycode_plugins.explainers.comparison.outcome import ComparedUnit, Comparison
from polycode_plugins.explainers.comparison.spending import spent_by
from polycode_plugins.explainers.records.openai_records import KIND, read_neuron
from polycode_plugins.explainers.records.protocols import Protocol, protocol_named
from polycode_plugins.explainers.records.unit_records import Shape
from polycode_plugins.explainers.scoring.evaluation import Scoring
from polycode_plugins.files.provenance import Rows

Paths = str | Path | Sequence[str | Path]
_NAMED = 3  # files that a sentence names


def compare_records(
    files: Paths | Mapping[str, Paths],
    *,
    explainer: str | Explainer = "token-lookup",
    protocol: str | Protocol = "openai",
    seed: int = 0,
    explainer_options: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    progress: bool | None = None,
    command: str | None = None,
    **options: Any,
) -> Comparison:
    """Explain and score units out of NeuronRecord files, as `compare` does those of a model.

    Args:
        files: a file, a folder (all .json in it, however deep), a pattern of such, or a list of
            these; or {kind: the same} for several kinds of units, {"neuron": .., "projection": ..}.
        explainer: see `compare`.
        protocol: see `compare`.
        seed: see `compare`.
        explainer_options: see `compare`.
        out: see `compare`.
        fresh: see `compare`.
        progress: see `compare`.
        command: see `compare`.
        options: fields of `explainers.Scoring`.

    Raises:
        DataError: where no file can be read, or one unit is in two files. Files that cannot be
            read beside others that can are counted in `run["warnings"]`.
        PolycodeError: one of its other kinds, see `compare`.
    """
    chosen = protocol_named(protocol)
    scoring = Scoring(**options)
    groups = {k: _files(p) for k, p in _by_kind(files).items()}
    with asking(explainer, explainer_options, out, fresh=fresh, progress=progress) as (
        made,
        folder,
    ):
        before = spent_by(made)
        sites, digest, warnings = _read(groups, chosen)
        asked = replace(scoring, simulator=scoring.simulator_of(made))
        found: list[ComparedUnit] = []
        for depth, units in enumerate(sites.values()):
            found += scored(units, depth, made, asked, seed=seed)
        run = run_record(
            made,
            asked,
            before,
            warnings,
            command=command,
            model={"adapter": "neuron-records", "type": "NeuronRecord"},
            data=digest,
            rows=Rows().to_json(),
            seed=seed,
            options={},
            protocol=asdict(chosen),
            signs="positive",
        )
        comparison = Comparison(tuple(found), run)
        if folder is not None:
            write(comparison, folder)
        return comparison


def _by_kind(files: Paths | Mapping[str, Paths]) -> Mapping[str, Paths]:
    return files if isinstance(files, Mapping) else {KIND: files}


def _files(paths: Paths) -> list[Path]:
    """The files meant, each once, in the order of their names' numbers."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found: dict[Path, None] = {}
    for one in map(Path, given):
        inner = sorted(one.rglob("*.json")) if one.is_dir() else [one] if one.is_file() else []
        inner = inner or [p for p in map(Path, sorted(glob.glob(str(one)))) if p.is_file()]
        if not inner:
            raise DataError(f"there is no file of records at {str(one)!r}; check the path")
        found |= dict.fromkeys(inner)
    return sorted(found, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts 9.json before 10.json."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", str(path))]


_Units = list[tuple[UnitRecords, Shape]]


def _read(
    groups: Mapping[str, Sequence[Path]], protocol: Protocol
) -> tuple[dict[str, _Units], str, list[str]]:
    """The units of each site, what was read in one word, and what a reader should know."""
    sites: dict[str, _Units] = {}
    words: dict[str, str] = {}
    first: dict[tuple[str, str], Path] = {}
    failures: list[str] = []
    sha = hashlib.sha256()
    for kind, path in _each(groups):
        try:
            records, shape = read_neuron(path, protocol, kind=kind, words=words)
        except DataError as error:
            failures.append(str(error))
            continue
        other = first.setdefault((records.site, records.unit), path)
        if other != path:
            raise DataError(
                f"{str(other)!r} and {str(path)!r} are both of {records.unit} of "
                f"{records.site!r}; leave one out"
            )
        sha.update(path.read_bytes())
        sites.setdefault(records.site, []).append((records, shape))
    count = sum(map(len, groups.values()))
    if not sites:
        raise DataError(f"none of {count} files can be read; the first: {failures[0]}")
    order = sorted(sites, key=lambda s: _natural(Path(s)))
    said = _sentences(sites, failures, count)
    data = f"{count - len(failures)} NeuronRecord files, sha256 {sha.hexdigest()[:16]}"
    return {site: sites[site] for site in order}, data, said


def _each(groups: Mapping[str, Sequence[Path]]) -> Iterator[tuple[str, Path]]:
    for kind, paths in groups.items():
        for path in paths:
            yield kind, path


def _sentences(sites: Mapping[str, _Units], failures: Sequence[str], count: int) -> list[str]:
    """One sentence for each thing that is so of some units or files."""
    said = []
    if failures:
        rest = f" (the first {_NAMED})" if len(failures) > _NAMED else ""
        named = "; ".join(failures[:_NAMED])
        said.append(f"{len(failures):,} of {count:,} files were not read{rest}: {named}")
    units = [records for group in sites.values() for records, _ in group]
    notes = Counter(re.sub(r"^\d+ of its", "some of its", n) for u in units for n in u.notes)
    said += [f"{n:,} of {len(units):,} units: {note}" for note, n in notes.most_common()]
    return said
