"""Runs over the networks, each kept in a folder of its own, and the tables made of them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import polycode_plugins as pc
from benchmarks.atlas.networks import Network, Stream
from polycode_plugins.errors import StateError

MAIN, BRANCHES = "main", "branches"
#: Nearest neighbours and canonical correlations alone: critics would be trained for every block.
ESTIMATORS = ("gaussian", "ksg")


def metrics(network: Network, part: str) -> list[Any]:
    """What is measured: photographs have no order, so they have no action."""
    asked: list[Any] = [pc.metrics.Spectrum(), pc.metrics.Capacity(), pc.metrics.CKA()]
    if network.reads == "windows":
        asked.append(pc.metrics.Action())
    if part == MAIN:
        first = network.main.sites(network.blocks)[0]
        asked.append(pc.metrics.MINE(partner=first, estimators=ESTIMATORS))
    return asked


def streams(network: Network, part: str) -> tuple[Stream, ...]:
    """The sites of a part: what blocks hand on, or their branches."""
    return (network.main,) if part == MAIN else network.branches


def measured(
    network: Network, part: str, adapter: Any, data: str, folder: Path, size: int | None
) -> pc.Analysis:
    """One run, read where it is finished, gone on with where it was interrupted.

    Raises:
        StateError: for a folder with a run of another size.
    """
    sites = [site for s in streams(network, part) for site in s.sites(network.blocks)]
    return kept(folder, adapter, data, metrics(network, part), sites, size, network.options)


def kept(
    folder: Path,
    adapter: Any,
    data: str,
    asked: Sequence[Any],
    sites: Sequence[str],
    size: int | None,
    options: Mapping[str, Any],
) -> pc.Analysis:
    """`pc.analyze` into a folder, or what lies there."""
    if is_finished(folder):
        found = pc.Analysis.load(folder, state=False)
        if found.run["options"]["limit"] != size:
            raise StateError(
                f"{str(folder)!r} is of another size ({found.run['options']['limit']} rows, and "
                f"{size} are asked for); remove it, or give another folder with --out"
            )
        return found
    return pc.analyze(adapter, data, asked, list(sites), limit=size, out=folder, **options)


def is_finished(folder: Path) -> bool:
    """Whether a run in a folder has its results."""
    return (folder / "run.json").is_file() and (folder / "results.parquet").is_file()


def measure_all(
    network: Network, cached: Path, out: Path, size: int | None, of_branches: int | None = None
) -> None:
    """Both parts of a network; the model is loaded only where something is to be done.

    `of_branches` is the size of the second part, where it is to be another one.
    """
    parts = [MAIN, BRANCHES] if network.branches else [MAIN]
    adapter = None
    for part in parts:
        folder = out / network.name / part
        if adapter is None and not is_finished(folder):
            adapter = network.load(cached / network.name)
        begun, spent = time.monotonic(), time.process_time()
        rows = of_branches if part == BRANCHES and of_branches else size
        measured(network, part, adapter, network.data(cached), folder, rows)
        seconds, of_processor = time.monotonic() - begun, time.process_time() - spent
        print(f"{network.name} {part}: {seconds:.0f} s ({of_processor:.0f} s of processors)")


# -- tables ----------------------------------------------------------------------------------------


def site_row(results: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of one site, flat, each with the ends of its interval; NaN where undefined."""
    spectrum, capacity = results["spectrum"], results["capacity"]
    law, dims = spectrum.power_law, spectrum.dimensions
    row: dict[str, Any] = {
        "width": spectrum.width,
        "samples": spectrum.n_samples,
        "worth": spectrum.effective_samples,
        "verdict": spectrum.verdict,
        "deviation": number(law.deviation),
        **interval("exponent", spectrum.exponent, spectrum.interval),
        **interval("participation", dims.participation_ratio.value, dims.participation_ratio),
        **interval("effective_rank", dims.effective_rank.value, dims.effective_rank),
    }
    domain = law.domain
    for name in ("first", "last", "decades", "share"):
        row[f"domain_{name}"] = number(getattr(domain, name, None))
    row |= interval(
        "domain_exponent", getattr(domain, "exponent", None), getattr(domain, "interval", None)
    )
    row |= _first_direction(spectrum)
    fraction = capacity.redundancy_fraction
    ends = capacity.interval
    scaled = None if ends is None else tuple(end / capacity.flat_entropy for end in ends)
    row |= interval("redundancy", fraction, scaled)
    row["redundancy_bits"] = capacity.redundancy
    if (action := results.get("action")) is not None:
        ratio, ends = action.von_neumann_ratio, action.interval
        known = ratio is not None and ends is not None
        scaled = tuple(ratio * end / action.expected for end in ends) if known else None
        row |= interval("smoothness", ratio, scaled)
        row["action"] = number(action.normalised)
    if (shared := results.get("mine")) is not None:
        row |= interval("nats", shared.nats, shared.interval)
        row["ceiling"] = number(shared.ceiling)
    if (alike := results.get("cka")) is not None:
        row |= interval("cka_previous", alike.to_previous, alike.interval)
    return row


def _first_direction(spectrum: Any) -> dict[str, Any]:
    """Which rows rule, and what is left without them."""
    first = spectrum.first_direction
    left = first.remainder
    dims = None if left is None else left.dimensions
    named = first.rows[0].text if first.rows else None
    return {
        "first_share": first.share,
        "rules": bool(first.rules),
        "half_rows": number(first.half_rows),
        "half_share": number(first.half_share),
        "rows_out": 0 if left is None else left.n_rows,
        "participation_without": number(dims and dims.participation_ratio.value),
        "effective_rank_without": number(dims and dims.effective_rank.value),
        "token": (named or "").strip() if first.rules else "",
    }


def number(value: Any) -> float:
    """A float, NaN for None."""
    return math.nan if value is None else float(value)


def interval(name: str, value: Any, ends: Any) -> dict[str, float]:
    """`name`, `name_low`, `name_high`; `ends` is an interval, None, or what has an interval."""
    ends = getattr(ends, "interval", ends)
    low, high = (math.nan, math.nan) if ends is None else ends
    return {name: number(value), f"{name}_low": number(low), f"{name}_high": number(high)}


def rows_of(network: Network, kind: Stream, analysis: Any) -> list[dict[str, Any]]:
    """A row for every block, with its relative depth from 0 to 1."""
    last = max(network.blocks - 1, 1)
    return [
        {
            "network": network.name,
            "kind": kind.kind,
            "block": block,
            "depth": block / last,
            "site": site,
            **site_row(analysis[site]),
        }
        for block, site in enumerate(kind.sites(network.blocks))
        if site in analysis.results
    ]


def pairs_of(network: Network, kind: Stream, analysis: Any) -> list[dict[str, Any]]:
    """CKA of every pair of blocks."""
    sites = [s for s in kind.sites(network.blocks) if s in analysis.results]
    found = []
    for block, site in enumerate(sites):
        result = analysis[site]["cka"]
        at = {name: place for place, name in enumerate(result.sites)}
        found += [
            {
                "network": network.name,
                "kind": kind.kind,
                "block": block,
                "other": other,
                "cka": float(result.cka[at[name]]),
                "low": float(result.low[at[name]]),
                "high": float(result.high[at[name]]),
            }
            for other, name in enumerate(sites)
        ]
    return found


def tables(networks: Iterable[Network], out: Path) -> dict[str, pd.DataFrame]:
    """`sites`, `pairs` and `runs` of all that is finished in `out`."""
    sites: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    for network in networks:
        for part in (MAIN, BRANCHES):
            folder = out / network.name / part
            if not is_finished(folder):
                continue
            analysis = pc.Analysis.load(folder, state=False)
            runs.append(run_row(network.name, part, analysis))
            for stream in streams(network, part):
                sites += rows_of(network, stream, analysis)
                pairs += pairs_of(network, stream, analysis)
    return {"sites": pd.DataFrame(sites), "pairs": pd.DataFrame(pairs), "runs": pd.DataFrame(runs)}


def run_row(name: str, part: str, analysis: Any) -> dict[str, Any]:
    """What made a run: size, seed, versions, time."""
    run = analysis.run
    first = next(iter(analysis.results.values()))["spectrum"]
    return {
        "network": name,
        "part": part,
        "sites": len(analysis),
        "rows": run["rows"]["count"],
        "samples": first.n_samples,
        "seed": run["seed"],
        "seconds": run["seconds"],
        "versions": versions(run),
    }


def versions(run: Mapping[str, Any]) -> str:
    """Of this package, Python, and the libraries that numbers come from."""
    libraries = run["libraries"]
    named = {name: libraries[name] for name in ("torch", "numpy", "scipy") if name in libraries}
    known = {"polycode-plugins": run["polycode-plugins"], "python": run["python"], **named}
    return ", ".join(f"{name} {version}" for name, version in known.items())
