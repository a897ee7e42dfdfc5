"""The atlas's pictures: every quantity by relative depth, over all networks, in one palette."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.atlas.controls import SHUFFLED_WINDOWS
from benchmarks.atlas.networks import ATTENTION, NEURONS, RESIDUAL, STAGES, Network
from polycode_plugins.experiments import drawing
from polycode_plugins.experiments.by_depth import plain_log
from polycode_plugins.files.storage import write_file

Tables = Mapping[str, pd.DataFrame]
DPI = 130
HIGHEST = 2.5  # exponent that is drawn


def draw(tables: Tables, networks: Sequence[Network], folder: Path) -> list[tuple[str, str]]:
    """Write all pictures into a folder; returns (file, caption) of each."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    shown = [n for n in networks if (tables["sites"]["network"] == n.name).any()]
    pictures: list[tuple[str, str, Any]] = [
        ("exponents", EXPONENTS, lambda: _exponents(tables["sites"], shown)),
        ("dimensions", DIMENSIONS, lambda: _dimensions(tables["sites"], shown)),
        ("likeness", LIKENESS, lambda: _likeness(tables, shown)),
        ("controls", CONTROLS, lambda: _controls(tables, shown)),
    ]
    for name, caption, figure in pictures:
        with drawing.style():
            path = folder / f"atlas-{name}.png"
            write = partial(figure().savefig, format="png", dpi=DPI, metadata={"Software": None})
            write_file(path, write)
        made.append((path.name, caption))
    return made


EXPONENTS = (
    "Exponents by relative depth (0 is the first block, 1 the last), with 95% intervals. Open "
    "marks: the exponent of the widest range of ranks over which one power law holds. What lies "
    f"above {HIGHEST} is not drawn (narrow first stages, blocks where a few rows rule)."
)
DIMENSIONS = (
    "Dimensions and smoothness of what blocks hand on. Open marks: without the rows that make the "
    "first direction, where a few do. Bands are 95% intervals; there are none where a few rows "
    "rule."
)
LIKENESS = (
    "What is kept of the first block's code, as a share of what the noise lets through (a), CKA "
    "with the block before (b), and CKA of all pairs of blocks (below)."
)
CONTROLS = (
    "Exponents as trained and with every parameter's entries in random order, the latter at "
    f"{SHUFFLED_WINDOWS} windows (a); a small model's last block over its training, by five groups "
    "of texts (b); soft and hard rank of MLP neurons by width, three networks (c); median kurtosis "
    "of neurons over that of a random rotation (d)."
)


def _main(sites: pd.DataFrame) -> pd.DataFrame:
    return sites[sites["kind"].isin((RESIDUAL, STAGES))]


def _line(ax: Any, rows: pd.DataFrame, column: str, number: int, title: str, by: Any = 1) -> None:
    """A quantity by depth, and its band."""
    rows = rows.sort_values("depth")
    colour, x = drawing.COLOURS[number], rows["depth"].to_numpy()
    scale = rows[by].to_numpy() if isinstance(by, str) else by
    if f"{column}_low" in rows:
        low, high = (rows[f"{column}_{end}"].to_numpy() / scale for end in ("low", "high"))
        ax.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
    mark = drawing.MARKERS[number]
    ax.plot(x, rows[column].to_numpy() / scale, f"{mark}-", color=colour, label=title, lw=1)


def _open_marks(ax: Any, rows: pd.DataFrame, column: str, number: int, by: Any = 1) -> None:
    rows = rows.sort_values("depth").dropna(subset=[column])
    scale = rows[by].to_numpy() if isinstance(by, str) else by
    mark, colour = drawing.MARKERS[number], drawing.COLOURS[number]
    ax.plot(rows["depth"], rows[column] / scale, mark, mfc="none", mec=colour, mew=0.8, ls="none")


def _by_network(rows: pd.DataFrame, shown: Sequence[Network]) -> list[tuple[int, str, Any]]:
    """(number of its colour, title, rows) of each network that has any."""
    found = [(i, n.title, rows[rows["network"] == n.name]) for i, n in enumerate(shown)]
    return [one for one in found if not one[2].empty]


def _exponents(sites: pd.DataFrame, shown: Sequence[Network]) -> Any:
    made, axes = drawing.panels(3, height=2.9)
    kinds = (
        ("Residual stream, stages", (RESIDUAL, STAGES)),
        ("Attention output", (ATTENTION,)),
        ("MLP neurons", (NEURONS,)),
    )
    for ax, (title, kind) in zip(axes[0], kinds, strict=True):
        for number, name, rows in _by_network(sites[sites["kind"].isin(kind)], shown):
            _line(ax, rows, "exponent", number, name)
            _open_marks(ax, rows, "domain_exponent", number)
        ax.axhline(1, color=drawing.INK, ls="--", lw=0.7)
        ax.set_ylim(0, HIGHEST)
        ax.set_xlabel("relative depth")
        ax.set_title(title)
    axes[0][0].set_ylabel("exponent (−α)")
    _legend_below(made, axes[0][0])
    drawing.letter(axes[0])
    return made


def _legend_below(made: Any, ax: Any) -> None:
    handles, labels = ax.get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def _dimensions(sites: pd.DataFrame, shown: Sequence[Network]) -> Any:
    made, axes = drawing.panels(2, rows=2, height=2.3)
    rows = _main(sites)
    panels = (
        ("participation", "participation_without", "participation ratio / width", "width", True),
        ("effective_rank", "effective_rank_without", "effective rank / width", "width", False),
        ("redundancy", None, "redundancy (share of flat code)", 1, False),
        ("smoothness", None, "squared step / variance", 1, False),
    )
    for ax, (column, without, label, by, logs) in zip(axes.flat, panels, strict=True):
        for number, name, part in _by_network(rows, shown):
            if part[column].notna().any():
                _line(ax, part, column, number, name, by)
                if without is not None:
                    _open_marks(ax, part, without, number, by)
        if logs:
            ax.set_yscale("log")
            plain_log(ax)
        ax.set_ylabel(label)
        ax.set_xlabel("relative depth")
    axes[1][1].axhline(2, color=drawing.INK, ls="--", lw=0.7)
    for ax, title in zip(
        axes.flat,
        ("Participation ratio", "Effective rank", "Redundancy", "Smoothness"),
        strict=True,
    ):
        ax.set_title(title)
    _legend_below(made, axes[0][0])
    drawing.letter(list(axes.flat))
    return made


def _likeness(tables: Tables, shown: Sequence[Network]) -> Any:
    from matplotlib.figure import Figure

    made = Figure(figsize=(drawing.TWO, 4.6), layout="constrained")
    top, bottom = made.subfigures(2, 1, height_ratios=(1.15, 1))
    kept, neighbours = top.subplots(1, 2)
    rows = _main(tables["sites"])
    for number, name, part in _by_network(rows, shown):
        part = part[part["block"] > 0]
        if "nats" in part and part["nats"].notna().any():
            _line(kept, part, "nats", number, name, "ceiling")
        _line(neighbours, part, "cka_previous", number, name)
    kept.set_ylim(0, 1)
    kept.set_ylabel("nats / ceiling")
    kept.set_title("Kept of the first block's code")
    neighbours.set_ylim(-0.1, 1.1)
    neighbours.set_ylabel("CKA")
    neighbours.set_title("CKA with the block before")
    for ax in (kept, neighbours):
        ax.set_xlabel("relative depth")
    neighbours.legend(loc="lower right")
    pairs = tables["pairs"]
    pairs = pairs[pairs["kind"].isin((RESIDUAL, STAGES))]
    panels = np.atleast_1d(bottom.subplots(1, len(shown)))
    image = None
    for ax, network in zip(panels, shown, strict=True):
        part = pairs[pairs["network"] == network.name]
        square = part.pivot(index="block", columns="other", values="cka").to_numpy()
        image = ax.imshow(square, vmin=0, vmax=1, cmap="viridis", origin="lower")
        ax.set_title(network.title)
        ax.locator_params(integer=True)
        ax.set_xlabel("block")
    panels[0].set_ylabel("block")
    bottom.colorbar(image, ax=list(panels), label="CKA", shrink=0.8)
    drawing.letter([kept, neighbours])
    return made


def _controls(tables: Tables, shown: Sequence[Network]) -> Any:
    made, axes = drawing.panels(2, rows=2, height=2.3)
    (shuffled, phases), (widths, bases) = axes
    rows = tables.get("shuffled")
    for number, name in enumerate(("trained", "shuffled")):
        if rows is not None and not rows.empty:
            x, colour = rows["block"], drawing.COLOURS[number]
            low, high = (rows[f"exponent_{name}_{end}"] for end in ("low", "high"))
            shuffled.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
            y = rows[f"exponent_{name}"]
            shuffled.plot(x, y, f"{drawing.MARKERS[number]}-", color=colour, label=name, lw=1)
            shuffled.legend()
    shuffled.set_xlabel("block")
    shuffled.set_ylabel("exponent (−α)")
    shuffled.set_title("Trained and shuffled weights")
    _draw_phases(phases, tables.get("checkpoints"))
    _draw_widths(widths, tables.get("widths"))
    found = tables.get("bases")
    for number, name, part in _by_network(found, shown) if found is not None else []:
        ratio = (part["kurtosis"] / part["kurtosis_rotated"]).groupby(part["block"])
        x = ratio.mean().index / max(part["block"].max(), 1)
        bases.plot(x, ratio.mean(), f"{drawing.MARKERS[number]}-", label=name, lw=1,
                   color=drawing.COLOURS[number])  # fmt: skip
    bases.axhline(1, color=drawing.INK, ls="--", lw=0.7)
    bases.set_yscale("log")
    bases.set_ylim(bottom=0.25)  # room for the legend
    plain_log(bases)
    bases.set_xlabel("relative depth")
    bases.set_ylabel("kurtosis: neurons / rotated")
    bases.set_title("Neurons and their rotation")
    if bases.get_legend_handles_labels()[0]:  # none where this was not measured
        bases.legend()
    drawing.letter(list(axes.flat))
    return made


def _draw_phases(ax: Any, rows: pd.DataFrame | None) -> None:
    if rows is not None and not rows.empty:
        other = ax.twinx()
        for panel, column, number in ((ax, "effective_rank", 0), (other, "exponent", 1)):
            summary = rows.groupby("step")[column].agg(["mean", "min", "max"])
            x = np.arange(len(summary))
            colour = drawing.COLOURS[number]
            panel.fill_between(x, summary["min"], summary["max"], color=colour, alpha=0.2, lw=0)
            panel.plot(x, summary["mean"], f"{drawing.MARKERS[number]}-", color=colour, lw=1)
            panel.set_ylabel(column.replace("_", " "), color=colour)
            panel.set_xticks(x, [str(step) for step in summary.index])
        other.spines["right"].set_visible(True)
    ax.set_xlabel("training step")
    ax.set_title("Over the training of a small model")


def _draw_widths(ax: Any, rows: pd.DataFrame | None) -> None:
    for number, column in enumerate(("soft", "hard")):
        if rows is not None and not rows.empty:
            by = np.log2(rows[column]).groupby([rows["network"], rows["inner"]]).mean().unstack()
            for network, line in enumerate(2 ** by.to_numpy()):
                label = f"{column} rank" if not network else None
                ax.plot(by.columns, line, f"{drawing.MARKERS[number]}-", label=label, lw=1,
                        color=drawing.COLOURS[number])  # fmt: skip
            ax.set_xticks(by.columns.tolist(), [str(width) for width in by.columns])
    ax.set_xscale("log")
    ax.minorticks_off()
    ax.set_yscale("log")
    plain_log(ax)
    if rows is not None and not rows.empty:
        ax.set_xticks(sorted(rows["inner"].unique()), sorted(rows["inner"].unique()))
        ax.legend()
    ax.set_xlabel("MLP neurons")
    ax.set_ylabel("rank")
    ax.set_title("Soft and hard rank by width")
