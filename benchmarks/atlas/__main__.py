"""Measure what is not measured yet, and write the page; see the package's docstring."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.atlas import (
    claims,
    controls,
    earlier,
    figures,
    measurements,
    page,
    papers,
    small_models,
)
from benchmarks.atlas.networks import NETWORKS, ROOT, Network, cache, named
from polycode_plugins.experiments.base import read_table
from polycode_plugins.experiments.claims import judge
from polycode_plugins.files.storage import write_text

WINDOWS, BASIS_WINDOWS = 1200, 24


def main() -> None:
    parser = argparse.ArgumentParser(description="An atlas of trained networks.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "atlas")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="default: %(default)s")
    parser.add_argument(
        "--branch-windows", type=int, help="for attention and neurons; default: as many"
    )
    parser.add_argument("--photographs", type=int, help="default: all")
    parser.add_argument("--only", nargs="+", choices=[*STEPS], help="default: every step")
    parser.add_argument("--networks", nargs="+", choices=[n.name for n in NETWORKS])
    parser.add_argument("--page-only", action="store_true", help="measure nothing")
    parser.add_argument("--write", type=Path, default=ROOT / "docs", help="default: docs")
    options = parser.parse_args()
    chosen = [n for n in NETWORKS if not options.networks or n.name in options.networks]
    there = [n for n in chosen if (cache() / n.name).is_dir()]
    for network in chosen:
        if network not in there:
            print(f"{network.title} is not in {cache()} and is left out; make real gets it")
    if not options.page_only:
        for step in options.only or STEPS:
            begun = time.monotonic()
            STEPS[step](there, options)
            print(f"{step}: {time.monotonic() - begun:.0f} s in all", flush=True)
    write_page(there, options)


def _size(network: Network, options: Any) -> int | None:
    size = options.windows if network.reads == "windows" else options.photographs
    return None if size is None else int(size)


def _networks(networks: list[Network], options: Any) -> None:
    for network in networks:
        size, of_branches = _size(network, options), options.branch_windows
        measurements.measure_all(network, cache(), options.out, size, of_branches)


def _shuffled(networks: list[Network], options: Any) -> None:
    for network in networks:
        if network.name == "smollm2":
            size = min(options.windows, controls.SHUFFLED_WINDOWS)
            controls.measure_shuffled(network, cache(), options.out, size)
            _keep(controls.against_shuffled(network, options.out), "shuffled", options.out)


def _bases(networks: list[Network], options: Any) -> None:
    readers = [n for n in networks if n.reads == "windows"]
    found = [controls.measure_bases(n, cache(), options.out, BASIS_WINDOWS) for n in readers]
    if found:
        _keep(pd.concat(found, ignore_index=True), "bases", options.out)


def _training(_networks: list[Network], options: Any) -> None:
    folder = options.out / "small"
    folder.mkdir(parents=True, exist_ok=True)
    _keep(small_models.checkpoints(folder), "checkpoints", options.out)
    _keep(small_models.widths(folder), "widths", options.out)


def _earlier(networks: list[Network], options: Any) -> None:
    for network in networks:
        if network.name == "smollm2":
            _keep(earlier.measure(named("smollm2"), cache(), options.out), "earlier", options.out)


def _papers(networks: list[Network], options: Any) -> None:
    if any(network.name == "smollm2" for network in networks):
        papers.measure(options.out, options.write)


STEPS = {
    "networks": _networks,
    "shuffled": _shuffled,
    "bases": _bases,
    "training": _training,
    "earlier": _earlier,
    "papers": _papers,
}
KEPT = ("shuffled", "bases", "checkpoints", "widths", "earlier")


def _keep(table: pd.DataFrame, name: str, out: Path) -> None:
    write_text(out / f"{name}.csv", table.to_csv(index=False))


def write_page(networks: list[Network], options: Any) -> None:
    """The page, its pictures, and the numbers behind them as CSV in the folder of the runs."""
    tables = measurements.tables(networks, options.out)
    for name, table in tables.items():
        _keep(table, name, options.out)
    for name in KEPT:
        if (options.out / f"{name}.csv").is_file():
            tables[name] = read_table(options.out / f"{name}.csv")
    if tables["sites"].empty:
        print("no network is measured yet, so the page stays as it was; run the step networks")
        return
    shown = [n for n in networks if (tables["sites"]["network"] == n.name).any()]
    verdicts = judge(claims.claims(shown), tables)
    rows = [verdict.row() for verdict in verdicts]
    write_text(options.out / "verdicts.json", json.dumps(rows, indent=1))
    pictures = figures.draw(tables, networks, options.write / "images")
    text = page.markdown(tables, verdicts, networks, pictures)
    write_text(options.write / "atlas.md", text)
    print(f"page: {options.write / 'atlas.md'}")


if __name__ == "__main__":
    main()
