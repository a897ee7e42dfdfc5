"""All figures and verdicts on one page: HTML that asks the network for nothing, or Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from polycode_plugins._version import __version__
from polycode_plugins.experiments.claims import Verdict
from polycode_plugins.experiments.reproducing import Reproduction

_SIGNS = {"holds": "✓", "does not hold": "✗", "cannot be judged at this scale": "?"}
_KINDS = {"holds": "yes", "does not hold": "no", "cannot be judged at this scale": "open"}

RULE = (
    "A claim holds where the whole 95% interval of its effect meets the criterion, does not hold "
    "where no part of it does, and is not judged otherwise. An effect without an interval is exact."
)
CAUTION = (
    "The papers make most claims in words. The statistics and criteria are ours, and some were "
    "settled after a first look at runs of this size: read a verdict as evidence from this "
    "reproduction, with its settings, and not as a registered test."
)

_CSS = """
:root { color-scheme: light dark; --ink: #1d2430; --paper: #fff; --line: #dfe3e8; --soft: #5b6573;
  --yes: #006b4f; --no: #b3261e; --open: #7a5b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --paper: #14181f; --line: #333b47;
  --soft: #a4adba; --yes: #5fd0a8; --no: #ff8a80; --open: #e3c265; } }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; }
img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: 4px; padding: .5rem; box-sizing: border-box; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .875rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem;
  border-bottom: 1px solid var(--line); }
td.verdict { font-weight: 600; white-space: nowrap; }
.yes { color: var(--yes); } .no { color: var(--no); } .open { color: var(--open); }
small, .soft { color: var(--soft); } nav li { margin: .2rem 0; }
"""


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many claims hold, do not, and could not be judged."""
    counts = {o: sum(v.outcome == o for v in verdicts) for o in _SIGNS}
    words = {"holds": "hold", "does not hold": "do not hold"}
    said = [f"{n} {words.get(o, 'cannot be judged at this scale')}" for o, n in counts.items() if n]
    return f"Of {len(verdicts)} claims {', '.join(said)}." if verdicts else "No claims."


def html(made: Sequence[Reproduction], failed: Sequence[tuple[str, str]] = ()) -> str:
    """One page of figures and verdicts; `failed` are (name, what went wrong)."""
    every = [verdict for one in made for verdict in one.verdicts]
    links = "".join(
        f'<li><a href="#{one.experiment.name}">{escape(one.experiment.title)}</a> '
        f"<small>{escape(summary(one.verdicts))}</small></li>"
        for one in made
    )
    gone = "".join(
        f'<li class="no">{escape(name)} was not made: {escape(why)}</li>' for name, why in failed
    )
    body = "\n".join(_section(one) for one in made)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">"
        f"<title>The papers' figures</title><style>{_CSS}</style></head><body>\n"
        f"<h1>The papers' figures</h1><p>{escape(summary(every))}</p>\n"
        f'<p class="soft">{RULE} {CAUTION} Made with polycode-plugins {__version__}.</p>\n'
        f"<nav><ul>{links}{gone}</ul></nav>\n{body}\n</body></html>\n"
    )


def _section(one: Reproduction) -> str:
    experiment = one.experiment
    picture = base64.b64encode(one.png.read_bytes()).decode("ascii")
    rows = "".join(
        f"<tr><td>{escape(v.claim.text)}<br><small>{escape(v.claim.source)}</small></td>"
        f"<td>{escape(v.claim.statistic)}</td><td>{escape(v.measured)}</td>"
        f"<td>{escape(str(v.claim.criterion))}</td>"
        f'<td class="verdict {_KINDS[v.outcome]}">{_SIGNS[v.outcome]} {v.outcome}'
        + (f"<br><small>{escape(v.reason)}</small>" if v.reason else "")
        + "</td></tr>"
        for v in one.verdicts
    )
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in experiment.remarks)
    return (
        f'<section id="{experiment.name}"><h2>{escape(experiment.title)}</h2>\n'
        f'<p class="soft">{escape(experiment.source)} · scale {one.scale}, seed {one.seed}, '
        f"{one.seconds:,.0f} s</p>\n"
        f'<img alt="{escape(experiment.title)}" src="data:image/png;base64,{picture}">\n'
        '<div class="scroll"><table><thead><tr><th>Claim</th><th>Statistic</th>'
        "<th>Measured (95% interval)</th><th>Criterion</th><th>Verdict</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>\n<ul>{remarks}</ul></section>"
    )


def markdown(made: Sequence[Reproduction], pictures: str) -> str:
    """The same as Markdown; `pictures` is the folder of the PNGs as links see it."""
    every = [verdict for one in made for verdict in one.verdicts]
    scales = sorted({f"`--scale {one.scale}`, seed {one.seed}" for one in made})
    lines = [
        "# The papers' figures",
        "",
        f"Generated by `polycode reproduce all --markdown` ({'; '.join(scales)}). {summary(every)}",
        "",
        f"{RULE} `polycode reproduce NAME` makes a figure again, with its numbers as CSV.",
        "",
        CAUTION,
    ]
    for one in made:
        experiment = one.experiment
        lines += [
            "",
            f"## {experiment.title}",
            "",
            f"`polycode reproduce {experiment.name}` · {experiment.source} · {one.seconds:,.0f} s",
            "",
            f"![{experiment.title}]({pictures}/{one.png.name})",
            "",
            "| Claim | Statistic | Measured (95% interval) | Criterion | Verdict |",
            "|---|---|---|---|---|",
        ]
        for v in one.verdicts:
            outcome = f"**{v.outcome}**" + (f" ({v.reason})" if v.reason else "")
            cells = [f"{v.claim.text} ({v.claim.source})", v.claim.statistic, v.measured]
            cells += [str(v.claim.criterion), outcome]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines += ["", *(f"- {remark}" for remark in experiment.remarks)]
    return "\n".join(lines) + "\n"


def copy_pictures(made: Sequence[Reproduction], folder: Path) -> None:
    """The PNGs, for the Markdown page beside them."""
    import shutil

    folder.mkdir(parents=True, exist_ok=True)
    for one in made:
        shutil.copyfile(one.png, folder / one.png.name)
