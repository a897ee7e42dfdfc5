"""docs/atlas.md out of the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.atlas.findings import findings
from benchmarks.atlas.networks import RESIDUAL, STAGES, Network
from polycode_plugins.experiments.claims import Verdict
from polycode_plugins.experiments.page import CAUTION, RULE, summary

Tables = Mapping[str, pd.DataFrame]

INTRODUCTION = """\
# An atlas of trained networks

Every block of networks that come with packages ([how to get them](real-networks.md)), measured
with this package: how steep its spectrum is and over which ranks one power law holds, how many
dimensions it uses, how smooth and how redundant its code is, what it keeps of the first
block's, and how alike blocks are. Written by `python -m benchmarks.atlas`, which keeps each run
and goes on where it was interrupted.
"""

HOW_TO_READ = """\
Intervals are 95%, for documents drawn like these. *Exponent*: of the debiased fit over ranks 11
to 500 (λ ∝ i^−exponent). *One law*: the widest range of ranks over which one power law
describes the spectrum, with its exponent there. *Without*: the same without the rows that make
the first direction, where a few do ([why](metrics.md#spectrum-the-exponent)). *Step*: mean
squared step over the variance along a text; 2 is without order. *Redundancy*: share of the flat
code's entropy at a step of a tenth of a unit's deviation. *Kept*: mutual information [nats] of
8 leading components of the first block and 4 of this one, the latter with noise of half their
deviation, which lets {ceiling:.2f} nats through at most (canonical correlations and nearest
neighbours). *CKA*: debiased, with the block before. A dash is a number that is not defined, or
that there is too little data for. After an exponent: b, the spectrum is no single power law over
these ranks (broken); i, it scatters around one more than Gaussian rows would (irregular); n, not
tested."""

LISTS = (
    "Both lists are computed from the tables, and speak of the residual stream and of stages "
    "where they name no other site. Numbers with a sign are rank correlations with "
    "depth, of which 0.5 or more make a trend, or differences; nearly all means nine in ten. By "
    "chance one trend in twenty is 0.83 or more over 6 blocks, 0.50 over 16 and 0.36 over 30: of "
    "a network of 6 blocks no smaller one is evidence by itself."
)

CANNOT = """\
## What cannot be tested with these networks

- **That an exponent near 1 goes with generalisation** (Agrawal et al. 2022; Stringer et al.
  2019 of cortex): it takes many models of one kind with known accuracy. Here are one network of
  each kind.
- **What post-training does to the geometry** (Li et al. 2025): SmolLM2 is here as instructed
  alone, without the model that it was before, and dequantised from 4 bits; fine-tuning's
  changes and rounding cannot be told apart.
- **Phases of a long pretraining**: no checkpoints come with packages. The small model trained
  here sees 0.6 million tokens, where large ones see trillions; a phase that it does not show may
  come later.
- **Scaling laws of large MLPs** (Jha & Reagen 2025): the widths here are below a thousand, of
  networks trained for 200 steps, whose neurons use a handful of dimensions.
- **Scores of explanations by GPT-4**, and everything about GPT-2 XL: neither can be had without
  a network.
- **Where massive activations come from** (Sun et al. 2024): only what they do to the statistics
  is measured, at ordinary tokens: the special one that begins a window is left out of all
  statistics.
- **Action of the convolutional network** on its photographs: these have no order, so there is
  no path."""


def markdown(
    tables: Tables,
    verdicts: Sequence[Verdict],
    networks: Sequence[Network],
    pictures: Sequence[tuple[str, str]],
) -> str:
    """The page; pictures are (file in docs/images, caption)."""
    sites = tables["sites"]
    shown = [n for n in networks if (sites["network"] == n.name).any()]
    ceiling = sites["ceiling"].max() if "ceiling" in sites else math.nan
    lines = [INTRODUCTION, *how_made(tables["runs"], shown), ""]
    left_out = [n.title for n in networks if n not in shown]
    for network in shown:
        kinds = set(sites.loc[sites["network"] == network.name, "kind"])
        left_out += [f"{s.kind} of {network.title}" for s in network.streams if s.kind not in kinds]
    if left_out:
        lines += [f"Not measured for this page: {', '.join(left_out)}.", ""]
    lines += shown_pictures(pictures[:3])
    found = findings(sites, shown)
    lines += ["## The same in every network", ""]
    lines += [f"- {f.sentence}" for f in found if f.same] or ["Nothing that was asked."]
    lines += ["", "## Not the same", "", *(f"- {f.sentence}" for f in found if not f.same), ""]
    lines += [LISTS, ""]
    lines += claims(verdicts, pictures[3:])
    lines += ["", CANNOT, "", "## Block by block", "", HOW_TO_READ.format(ceiling=ceiling), ""]
    for network in shown:
        lines += by_block(sites[sites["network"] == network.name], network)
    if (earlier := tables.get("earlier")) is not None and not earlier.empty:
        lines += ["", *first_numbers(earlier)]
    return "\n".join(lines).rstrip() + "\n"


def shown_pictures(pictures: Sequence[tuple[str, str]]) -> list[str]:
    """Each with its caption below it."""
    return [
        line
        for file, caption in pictures
        for line in (f"![{caption.split('. ')[0]}](images/{file})", "", f"*{caption}*", "")
    ]


def how_made(runs: pd.DataFrame, networks: Sequence[Network]) -> list[str]:
    """A table of what was run, and how long it took."""
    lines = [
        "| network | what it is | read on | samples of the first site | sites | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for network in networks:
        parts = runs[runs["network"] == network.name]
        rows, samples = (_each(parts, column) for column in ("rows", "samples"))
        rows = f"{rows} {network.reads}"
        lines.append(
            f"| {network.title} | {network.note} | {rows} | {samples} | "
            f"{int(parts['sites'].sum())} | {parts['seconds'].sum():,.0f} |"
        )
    seeds = ", ".join(str(seed) for seed in sorted(set(runs["seed"])))
    versions = "; ".join(dict.fromkeys(runs["versions"]))
    return [
        *lines,
        "",
        f"Windows are of 64 tokens with the token that begins them, which is left out, as are "
        f"padding and special tokens. Seed {seeds}. Versions: {versions}. Seconds are of the "
        "clock on two processor cores, results included.",
    ]


def _each(parts: pd.DataFrame, column: str) -> str:
    """The number of what blocks hand on, and that of the branches where it is another."""
    numbers = list(dict.fromkeys(f"{int(value):,}" for value in parts[column]))
    return numbers[0] if len(numbers) == 1 else f"{numbers[0]} (branches {numbers[1]})"


def claims(verdicts: Sequence[Verdict], pictures: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each claim of others."""
    lines = ["## Claims of others", "", f"{summary(verdicts)} {RULE} {CAUTION}", ""]
    lines += [
        "Blocks of a network share its tokens and hand on most of their code, so shares of blocks "
        "count them as more independent than they are; where a verdict is near its criterion, "
        "read it as open.",
        "",
    ]
    lines += shown_pictures(pictures)
    lines += [
        "| Claim | Statistic | Measured (95% interval) | Criterion | Verdict |",
        "|---|---|---|---|---|",
    ]
    for v in verdicts:
        outcome = f"**{v.outcome}**" + (f" ({v.reason})" if v.reason else "")
        cells = [f"{v.claim.text} ({v.claim.source})", v.claim.statistic, v.measured]
        cells += [str(v.claim.criterion), outcome]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def by_block(rows: pd.DataFrame, network: Network) -> list[str]:
    """The tables of one network, one for each kind of site."""
    lines = [f"### {network.title}", ""]
    for kind in dict.fromkeys(rows["kind"]):
        part = rows[rows["kind"] == kind].sort_values("block")
        full = kind in (RESIDUAL, STAGES)
        names = ["block", "exponent", "one law: ranks, exponent, share of the variance"]
        names += ["participation ratio", "without", "effective rank", "without"]
        names += ["first direction", "step", "redundancy"]
        names += ["kept", "CKA"] if full else ["CKA"]
        widths = sorted(set(part["width"].astype(int)))
        wide = f"width {widths[0]}" if len(widths) == 1 else f"widths {widths[0]} to {widths[-1]}"
        lines += [f"**{kind[:1].upper()}{kind[1:]}**, {wide}.", ""]
        lines += [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
        lines += [f"| {' | '.join(_cells(row, full))} |" for _, row in part.iterrows()]
        lines.append("")
        lines += _named_tokens(part)
    return lines


def _cells(row: Any, full: bool) -> list[str]:
    mark = {"broken": " b", "irregular": " i", "not tested": " n"}.get(row["verdict"], "")
    cells = [
        str(int(row["block"])),
        between(row, "exponent", 2) + mark,
        _domain(row),
        between(row, "participation", 3, significant=True),
        plain(row["participation_without"]),
        between(row, "effective_rank", 3, significant=True),
        plain(row["effective_rank_without"]),
        f"{row['first_share']:.0%}" + (" r" if row["rules"] else ""),
        between(row, "smoothness", 2) if "smoothness" in row else "–",
        between(row, "redundancy", 2),
    ]
    if full:
        cells.append(between(row, "nats", 2) if row["block"] and "nats" in row else "–")
    return [*cells, between(row, "cka_previous", 2) if row["block"] else "–"]


def _domain(row: Any) -> str:
    if math.isnan(row["domain_first"]):
        return "–"
    first, last = int(row["domain_first"]), int(row["domain_last"])
    exponent = between(row, "domain_exponent", 2)
    return f"{first}–{last}: {exponent}, {row['domain_share']:.0%}"


def _named_tokens(rows: pd.DataFrame) -> list[str]:
    ruled = rows[rows["rules"].astype(bool)]
    if ruled.empty:
        return []
    tokens = list(dict.fromkeys(t for t in ruled["token"] if isinstance(t, str) and t))
    said = f"r: a few rows make the first direction (half of it {_range(ruled['half_rows'])} rows"
    if tokens:
        listed = ", ".join("`" + token.replace("|", "\\|").replace("`", "'") + "`"
                           for token in tokens[:6])  # fmt: skip
        said += f"; the largest are the tokens {listed}"
    return [f"{said}).", ""]


def _range(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"


def first_numbers(earlier: pd.DataFrame) -> list[str]:
    """Beside the numbers of an earlier measurement, at its number of windows."""
    agree, known = int(earlier["agrees"].sum()), int(earlier["exponent_low"].notna().sum())
    samples = int(earlier["samples"].iloc[0])
    lines = [
        "## At 110 windows",
        "",
        "SmolLM2's residual stream was measured before, at 110 windows (5,977 tokens) of a "
        f"similar collection of texts. At 110 windows of these ({samples:,} tokens) the intervals "
        f"of the exponent have values in common at {agree} of the {known} blocks that have one "
        "now. The tokens differ, and with them which rows rule.",
        "",
        "| block | exponent then | exponent now | participation ratio then, now | first direction "
        "then, now | action / variance then, now |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {int(row['block'])} | {between(row, 'earlier', 2)} | {between(row, 'exponent', 2)} | "
        f"{row['participation_earlier']:.3g}, {row['participation']:.3g} | "
        f"{row['share_earlier']:.0%}, {row['share']:.0%} | {row['action_earlier']:.3f}, "
        f"{row['action']:.3f} |"
        for _, row in earlier.iterrows()
    ]
    return lines


def between(row: Any, name: str, digits: int, *, significant: bool = False) -> str:
    """A value with its interval in brackets, where it has one."""
    shown = f".{digits}g" if significant else f".{digits}f"
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if math.isnan(value):
        return "–"
    text = _minus(format(value, shown))
    if math.isnan(low) or math.isnan(high):
        return text
    return f"{text} ({_minus(format(low, shown))}–{_minus(format(high, shown))})"


def plain(value: float) -> str:
    """Three digits, or a dash."""
    return "–" if math.isnan(value) else format(value, ".3g")


def _minus(text: str) -> str:
    return text.replace("-", "−")
