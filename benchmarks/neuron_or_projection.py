"""Neuron or projection, with the controls that decide, of a comparison that was saved.

One picture: how much better neurons are explained than each control, site by site, by each score
that is told, with the differences of the floors and what the control decides. And the same as a
table in Markdown.

    polycode compare --units neuron,rotated,matched,covariance,projection --out RUN ...
    python benchmarks/neuron_or_projection.py RUN docs/images/basis-NAME.png
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from polycode_plugins.experiments import drawing
from polycode_plugins.explainers.comparison.answer import WORDS
from polycode_plugins.explainers.comparison.contrasts import Contrast
from polycode_plugins.explainers.comparison.decisions import NEGLIGIBLE, untold
from polycode_plugins.explainers.comparison.outcome import TRAINED, Comparison
from polycode_plugins.explainers.comparison.plot import COLOURS, NAMES
from polycode_plugins.files.storage import write_file

DPI = 110
_LOOK_UP, _OTHERS = "token-lookup", "shuffled"


@dataclass(frozen=True)
class Difference:
    """Neurons less another kind at a site ("" for all), and what that decides ("" for nothing)."""

    kind: str
    contrast: Contrast
    floors: dict[str, float | None]
    verdict: str


def differences(comparison: Comparison, score: str) -> Iterator[list[Difference]]:
    """Of each kind beside neurons: site by site, last over all."""
    said = {(d.control, d.site): d.belongs for d in comparison.decisions(score)}
    for kind in (k for k in comparison.kinds if k != "neuron"):
        floors = {
            floor: comparison.contrast("neuron", kind, score, floor=floor)
            for floor in (_LOOK_UP, _OTHERS)
            if floor in comparison.floors
        }
        bare = "untold" if untold(comparison, "neuron", kind, score) else ""
        yield [
            Difference(
                kind, contrast, {name: of[i].difference for name, of in floors.items()},
                said.get((kind, contrast.site), bare),
            )
            for i, contrast in enumerate(comparison.contrast("neuron", kind, score))
        ]  # fmt: skip


def draw(comparison: Comparison, path: Path) -> None:
    """Write the picture, one panel for each score that is told."""
    scores = comparison.headline_scores
    rows = [*comparison.sites, ""] if len(comparison.sites) > 1 else [""]
    height = 1.4 + 0.13 * len(rows) * (len(comparison.kinds) + 0.5)
    with drawing.style():
        figure, axes = drawing.panels(len(scores), height=height)
        for ax, score in zip(axes[0], scores, strict=True):
            _panel(ax, list(differences(comparison, score)), rows)
            word = WORDS.get(score, score)
            ax.set_title(f"{word[0].upper()}{word[1:]}")
        axes[0][0].set_yticks(range(len(rows)), [_short(name) for name in rows])
        for ax in axes[0][1:]:
            ax.set_yticks(range(len(rows)), [""] * len(rows))
        _legend(figure, axes[0][0], comparison)
        drawing.letter(axes[0])
        write = partial(figure.savefig, format="png", dpi=DPI, metadata={"Software": None})
        write_file(path, write)


def _panel(ax: Any, of_kinds: Sequence[list[Difference]], rows: Sequence[str]) -> None:
    ax.axvspan(-NEGLIGIBLE, NEGLIGIBLE, color=drawing.FAINT, alpha=0.25, lw=0)
    ax.axvline(0, color=drawing.INK, lw=0.6)
    step = 0.8 / len(of_kinds)
    for number, found in enumerate(of_kinds):
        offset = step * (number - (len(of_kinds) - 1) / 2)
        for difference in found:
            if difference.contrast.site in rows:
                _mark(ax, rows.index(difference.contrast.site) + offset, difference, number)
    for row in range(1, len(rows)):
        ax.axhline(row - 0.5, color=drawing.FAINT, lw=0.5)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel("neurons less the others")
    low, high = ax.get_xlim()
    ax.set_xlim(low, high + 0.3 * (high - low))  # room for the words
    for number, found in enumerate(of_kinds):
        offset = step * (number - (len(of_kinds) - 1) / 2)
        for difference in found:
            if difference.contrast.site in rows and difference.verdict:
                ax.text(
                    1.0, rows.index(difference.contrast.site) + offset, difference.verdict,
                    transform=ax.get_yaxis_transform(), ha="right", va="center", fontsize=6,
                    color=COLOURS[difference.kind],
                )  # fmt: skip


def _mark(ax: Any, y: float, difference: Difference, number: int) -> None:
    """A difference with its interval, those of its floors beside it; nothing where it is untold."""
    contrast, colour = difference.contrast, COLOURS[difference.kind]
    if contrast.difference is None or difference.verdict == "untold":
        return
    if contrast.interval is not None:
        ax.plot(contrast.interval, (y, y), color=colour, lw=1.2)
    ax.plot(contrast.difference, y, drawing.MARKERS[number], color=colour, ms=4)
    marks = ((_LOOK_UP, "|", 6), (_OTHERS, "x", 3.5))
    for name, mark, size in marks:
        value = difference.floors.get(name)
        if value is not None:
            ax.plot(value, y, mark, color=drawing.INK, ms=size, mew=0.8)


def _legend(figure: Any, ax: Any, comparison: Comparison) -> None:
    kinds = [k for k in comparison.kinds if k != "neuron"]
    for number, kind in enumerate(kinds):
        name, mark = NAMES.get(kind, kind), drawing.MARKERS[number]
        ax.plot([], [], f"{mark}-", color=COLOURS[kind], ms=4, lw=1.2, label=name)
    ax.plot([], [], "|", color=drawing.INK, ms=6, mew=0.8, label="the same, of a look-up of tokens")
    ax.plot([], [], "x", color=drawing.INK, ms=3.5, mew=0.8, label="of explanations of other units")
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)


def _short(site: str) -> str:
    """block 3 for blocks.3.mlp.hook_post."""
    numbers = [part for part in site.split(".") if part.isdigit()]
    return f"block {numbers[0]}" if numbers else site or "all"


def table(comparison: Comparison) -> str:
    """Mean scores of the kinds with their floors, then differences and what they decide."""
    lines = []
    for score in comparison.headline_scores:
        lines += ["", f"{WORDS.get(score, score)}:", ""]
        lines += ["| units | scored | mean | look-up of tokens | others' explanations | ceiling |"]
        lines += ["|---|---|---|---|---|---|"]
        for kind in comparison.kinds:
            units = [u for u in comparison if u.kind == kind and u.weights == TRAINED]
            known = [u for u in units if u.score(score) is not None]
            means = [
                _mean([u.floor(name, score) for u in known])
                for name in (_LOOK_UP, _OTHERS, "oracle")
            ]
            mean = _mean([u.score(score) for u in known])
            cells = [f"{len(known)} of {len(units)}", mean, *means]
            lines.append(f"| {NAMES.get(kind, kind)} | {' | '.join(cells)} |")
        of_kinds = list(differences(comparison, score))
        names = " | ".join(f"less {NAMES.get(of[0].kind, of[0].kind)}" for of in of_kinds)
        lines += ["", f"| block | {names} |", "|---" * (len(of_kinds) + 1) + "|"]
        for row in zip(*of_kinds, strict=True):
            site = _short(row[0].contrast.site).removeprefix("block ")
            lines.append(f"| {site} | {' | '.join(map(_cell, row))} |")
    return "\n".join(lines)


def _cell(difference: Difference) -> str:
    contrast = difference.contrast
    if difference.verdict == "untold" or contrast.difference is None:
        return difference.verdict or "too few"
    said = f"{contrast.difference:.3f}"
    if contrast.interval is not None:
        said += " ({:.3f} to {:.3f})".format(*contrast.interval)
    verdict = f", {difference.verdict}" if difference.verdict else ""
    return said.replace("-", "\u2212") + verdict


def _mean(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{sum(known) / len(known):.3f}".replace("-", "\u2212") if known else "none"


def main() -> None:
    """Write the picture, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a comparison")
    parser.add_argument("picture", type=Path, help="PNG")
    options = parser.parse_args()
    comparison = Comparison.load(options.run)
    draw(comparison, options.picture)
    print(table(comparison))
    print("\nsites disagree (p), over all:")
    for score in comparison.headline_scores:
        for kind in comparison.kinds[1:]:
            of = comparison.contrast("neuron", kind, score)[-1]
            print(score, kind, of.disagreement, "overlap", of.overlap, "pairs", of.pairs)
    for warning in comparison.run.get("warnings", ()):
        print(warning)


if __name__ == "__main__":
    main()
