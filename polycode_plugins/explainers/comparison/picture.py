"""The picture that answers neuron or projection: scores between floor and ceiling, differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from polycode_plugins.activations import Site
from polycode_plugins.explainers.comparison.answer import WORDS, answers
from polycode_plugins.explainers.comparison.decisions import NEGLIGIBLE, Decision, untold
from polycode_plugins.explainers.comparison.outcome import RANDOM, TRAINED
from polycode_plugins.explainers.comparison.plot import NAMES, interval_of_mean
from polycode_plugins.explainers.comparison.statistics import adjusting
from polycode_plugins.pages.charts import PALETTE, Axis, Chart, Line, Series
from polycode_plugins.pages.depth_charts import Quantity, across, by_depth
from polycode_plugins.pages.pages import Part, Prose
from polycode_plugins.pages.tables import UNDEFINED, Column, Table, column, names

if TYPE_CHECKING:
    from polycode_plugins.explainers.comparison.contrasts import Contrast
    from polycode_plugins.explainers.comparison.outcome import ComparedUnit, Comparison
    from polycode_plugins.runs.analysis import Analysis

# Of the floors these have a value for each kind that is worth a line; the others lie near 0.
_FLOOR, _CEILING, _CHANCE, _CONTROL = "token-lookup", "oracle", "shuffled", "random weights"
_STROKES: dict[str, Line] = {_FLOOR: "dash", _CHANCE: "dot", _CONTROL: "dashdot"}
_SAID = {
    _FLOOR: "a look-up of tokens",
    _CHANCE: "explanations of other units",
    _CONTROL: "the network with its weights in random order",
}
_INTERVAL = "95% interval, symmetric bootstrap-t over units"


def picture(comparison: Comparison, analysis: Analysis | None = None) -> list[Part]:
    """The answer in sentences, in a picture of scores and one of differences, and as tables.

    By the fairest score first, see `Comparison.headline_scores`. A difference whose floors are far
    from chance is in no picture and no table.

    Args:
        comparison: with the names of its sites as they are to be shown.
        analysis: of the same model, to whose exponents and actions the scores are related.
    """
    score = comparison.headline_scores[0]
    parts: list[Part] = [_chart(comparison, score), _score_table(comparison)]
    if len(comparison.kinds) > 1:
        first, *others = comparison.kinds
        told = [k for k in others if not untold(comparison, first, k, score)]
        differences: list[Part] = []
        if told:
            differences = [_difference_chart(comparison, told, score)]
        tables: list[Part] = []
        rows = [
            contrast
            for of in comparison.headline_scores
            for kind in others
            if not untold(comparison, first, kind, of)
            for contrast in comparison.contrast(first, kind, of)
        ]
        if rows:
            tables.append(_contrast_table(rows))
        decided = comparison.decisions(score)
        if decided:
            tables.append(_decision_table(decided))
        parts = [Prose(answers(comparison)), parts[0], *differences, *tables, parts[1]]
    if analysis is not None:
        parts += _relation(comparison, analysis)
    return parts


def _chart(comparison: Comparison, score: str) -> Chart:
    sites = [Site(name) for name in comparison.sites]
    seed = int(comparison.run["seed"])
    groups = [(k, w) for w in comparison.weights for k in comparison.kinds]
    quantities, lines = [], []
    for number, (kind, weights) in enumerate(groups):
        units = [
            [u for u in comparison if (u.site, u.kind, u.weights) == (site.name, kind, weights)]
            for site in sites
        ]
        name = NAMES.get(kind, kind) + ("" if weights == TRAINED else ", random weights")
        quantities.append(_quantity(name, [_scores(of, score) for of in units], seed, score))
        if weights == TRAINED:
            for floor in (_FLOOR, _CEILING):
                means = [_mean(_floors(of_site, floor, score)) for of_site in units]
                lines.append(_line(f"{floor} of {name}", sites, means, f"c{number % PALETTE}"))
    at = [[u for u in comparison if u.site == site.name] for site in sites]
    chance = [_mean(_floors(of, _CHANCE, score)) for of in at]
    lines.append(_line(_CHANCE, sites, chance, "ink"))
    drawn = [line for line in lines if any(y is not None for y in line.y)]
    word = WORDS.get(score, score.replace("_", " "))
    caption = f"Mean {word}; bars are 95% intervals, bootstrapped over units."
    beside = [n for n in (_FLOOR, _CEILING) if any(line.name.startswith(n) for line in drawn)]
    if beside == [_FLOOR, _CEILING]:
        caption += (
            " A score is to be read between the dashed lines of its colour: below, what a mere "
            "look-up of tokens scores; above, what a perfect explanation would."
        )
    chance_drawn = any(line.name == _CHANCE for line in drawn)
    if chance_drawn:
        caption += " The dark dashed line is chance: the explanations of other units."
    chart = by_depth(
        "scores",
        "Explanation scores by depth",
        caption,
        Axis(word),
        sites,
        quantities,
        notes=[("ink", "dash", "explanations of other units")] if chance_drawn else (),
    )
    return replace(chart, series=[*drawn, *chart.series])


def _difference_chart(comparison: Comparison, others: Sequence[str], score: str) -> Chart:
    """The difference of the first kind to others by depth, with those of floors and control."""
    first = comparison.kinds[0]
    sites = [Site(name) for name in comparison.sites]
    quantities, lines = [], []
    for number, kind in enumerate(others):
        name = f"{NAMES.get(first, first)} less {NAMES.get(kind, kind)}"
        contrasts = comparison.contrast(first, kind, score)[:-1]
        texts = [[f"{name} {_shown(c.difference)}"] for c in contrasts]
        low, high = (
            [None if c.interval is None else c.interval[end] for c in contrasts] for end in (0, 1)
        )
        values = [c.difference for c in contrasts]
        quantities.append(Quantity(name, values, texts, low, high))
        colour = f"c{number % PALETTE}"
        beside: list[tuple[str, dict[str, str]]] = [
            (floor, {"floor": floor}) for floor in (_FLOOR, _CHANCE) if floor in comparison.floors
        ]
        if RANDOM in comparison.weights:
            beside.append((_CONTROL, {"weights": RANDOM}))
        for what, of in beside:
            means = [c.difference for c in comparison.contrast(first, kind, score, **of)[:-1]]
            lines.append(_line(f"{what}: {name}", sites, means, colour, _STROKES[what]))
    drawn = [line for line in lines if any(y is not None for y in line.y)]
    caption = "Difference of the mean scores; bars are 95% intervals, bootstrapped over units."
    if drawn:
        caption += (
            " The other lines of the same colour are the differences of floors and of the control."
        )
    chart = by_depth(
        "differences",
        "Differences by depth",
        caption,
        Axis("difference"),
        sites,
        quantities,
        notes=[
            ("ink", stroke, _SAID[what])
            for what, stroke in _STROKES.items()
            if any(line.name.startswith(f"{what}: ") for line in drawn)
        ],
    )
    return replace(chart, series=[*drawn, *chart.series])


def _line(
    name: str,
    sites: Sequence[Site],
    means: list[float | None],
    colour: str,
    stroke: Line = "dash",
) -> Series:
    places, heights = across(means)
    at = [*sites] * (len(places) // len(sites))
    hover = [[s.name, f"{name} {_shown(m)}"] for s, m in zip(at, heights, strict=True)]
    return Series(name, places, heights, colour, stroke, hover=hover, legend=False)


def _scores(units: Sequence[ComparedUnit], score: str) -> list[float]:
    return [s for u in units if (s := u.score(score)) is not None]


def _floors(units: Sequence[ComparedUnit], floor: str, score: str) -> list[float]:
    """The values of a floor of those units that have a score: both means are of the same units."""
    return [v for u in units if (v := u.floor(floor, score)) is not None]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _shown(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.3f}"


def _quantity(name: str, held: Sequence[Sequence[float]], seed: int, score: str) -> Quantity:
    means = [_mean(scores) for scores in held]
    bars = [interval_of_mean(list(scores), seed, score) for scores in held]
    texts = [
        [f"{name} {_shown(m)}, {len(scores)} units"] for m, scores in zip(means, held, strict=True)
    ]
    low = [None if b is None else b[0] for b in bars]
    high = [None if b is None else b[1] for b in bars]
    return Quantity(name, means, texts, low, high)


def _contrast_table(contrasts: Sequence[Contrast]) -> Table:
    intervals = [c.interval or (None, None) for c in contrasts]
    adjusted = [c.adjusted_interval or (None, None) for c in contrasts]
    kinds = [
        column("first", [NAMES.get(c.first, c.first) for c in contrasts]),
        column("second", [NAMES.get(c.second, c.second) for c in contrasts]),
    ]
    caption = "Differences between kinds of units"
    if len({(c.first, c.second) for c in contrasts}) == 1:
        first, second = (column.cells[0].text for column in kinds)
        kinds, caption = [], f"Differences: {first} less {second}"
    scores = [column("score", [c.score.replace("_", " ") for c in contrasts])]
    if len({c.score for c in contrasts}) == 1:
        scores, caption = [], f"{caption}, by {contrasts[0].score.replace('_', ' ')}"
    return Table(
        "contrasts",
        caption,
        [
            names("site", [c.site or "all sites" for c in contrasts]),
            *kinds,
            *scores,
            column(
                "difference",
                [c.difference for c in contrasts],
                digits=3,
                help="mean score of the one kind less that of the other",
            ),
            column("low", [i[0] for i in intervals], digits=3, help=_INTERVAL),
            column("high", [i[1] for i in intervals], digits=3),
            column(
                "p",
                [c.p_value for c in contrasts],
                digits=4,
                help="permutation of the kinds of units; of this row alone, uncorrected",
            ),
            column(
                "effect",
                [c.effect for c in contrasts],
                digits=2,
                help="the difference in standard deviations within kinds (Cohen's d)",
            ),
            column(
                "adjusted",
                [c.adjusted for c in contrasts],
                digits=3,
                help="the difference at equal log kurtosis and sparsity",
            ),
            column("adjusted low", [i[0] for i in adjusted], digits=3, help=_INTERVAL),
            column("adjusted high", [i[1] for i in adjusted], digits=3),
            column(
                "overlap",
                [c.overlap for c in contrasts],
                digits=2,
                help="share of a kind's units whose kurtosis and sparsity are among those of the "
                f"other kind; nothing is adjusted below {adjusting.COMMON}",
            ),
            column(
                "units",
                [f"{a} and {b}" for a, b in (c.n for c in contrasts)],
                help="of each kind with a score; where each was made for one of the other, pairs",
            ),
            column(
                "adjusted units",
                [f"{a} and {b}" for a, b in (c.adjusted_n for c in contrasts)],
                help="of each kind with a score and a kurtosis: overlap and adjusted are of these",
            ),
            *_disagreements(contrasts),
        ],
    )


def _disagreements(contrasts: Sequence[Contrast]) -> list[Column]:
    values = [c.disagreement for c in contrasts]
    if all(v is None for v in values):
        return []
    said = "p-value of the test that the difference is one at all sites; below 0.05 their mean is "
    return [column("sites disagree", values, digits=4, help=f"{said}that of no site")]


def _decision_table(decisions: Sequence[Decision]) -> Table:
    intervals = [d.contrast.interval or (None, None) for d in decisions]
    return Table(
        "decisions",
        "Basis or distribution",
        [
            names("site", [d.site or "all sites" for d in decisions]),
            column("control", [NAMES.get(d.control, d.control) for d in decisions]),
            column(
                "belongs to",
                [d.belongs for d in decisions],
                help="basis: neurons are explained better than the control; distribution: no "
                f"difference beyond {NEGLIGIBLE}; opposite: the control is explained better; "
                "incomparable: too little kurtosis and sparsity in common",
            ),
            column("difference", [d.contrast.difference for d in decisions], digits=3),
            column("low", [i[0] for i in intervals], digits=3, help=_INTERVAL),
            column("high", [i[1] for i in intervals], digits=3),
            column(
                "overlap",
                [d.contrast.overlap for d in decisions],
                digits=2,
                help="of the kurtosis and sparsity of neurons and control",
            ),
        ],
    )


def _score_table(comparison: Comparison) -> Table:
    """The mean score of each kind at each site beside its own floors and ceiling."""
    groups = [
        (site, kind, weights)
        for weights in comparison.weights
        for site in comparison.sites
        for kind in comparison.kinds
    ]
    held = [[u for u in comparison if (u.site, u.kind, u.weights) == group] for group in groups]
    floors = comparison.floors
    main = comparison.headline_scores[0]
    word = WORDS.get(main, main)
    columns = [
        names("site", [site for site, _, _ in groups]),
        column(
            "units",
            [
                NAMES.get(kind, kind) + ("" if weights == TRAINED else ", random weights")
                for _, kind, weights in groups
            ],
        ),
        column(
            "scored",
            [len(_scores(units, main)) for units in held],
            help=f"units that have a {word}; the others are in no mean",
        ),
        *(
            column(
                score.replace("_", " "),
                [_mean(_scores(units, score)) for units in held],
                digits=3,
                help=WORDS.get(score, score),
            )
            for score in comparison.headline_scores
        ),
    ]
    for floor in floors:
        means = [_mean(_floors(units, floor, main)) for units in held]
        columns.append(column(floor, means, digits=3, help=FLOOR_MEANINGS.get(floor, "")))
    return Table("beside", f"Scores beside their floors and ceiling ({word})", columns)


FLOOR_MEANINGS = {
    "shuffled": "floor: the explanation of another unit of the site",
    "empty": "floor: an explanation that says nothing; undefined where it makes all tokens equal",
    "constant": "floor: the same level at every token, which correlates with nothing",
    "token-lookup": "floor: the mean level of each token on the explaining texts",
    "oracle": "ceiling: the true activations on the 0-10 scale that explainers see",
}


def _left_out(counts: list[int]) -> list[Column]:
    if not any(counts):
        return []
    return [
        column("left out", counts, help="layers without a score or whose quantity is no number")
    ]


def _relation(comparison: Comparison, analysis: Analysis) -> list[Part]:
    from polycode_plugins.errors import DataError

    try:
        frame = comparison.relation(analysis)
    except DataError:
        return []  # the analysis is of other layers, or of other questions
    rows = frame[frame["weights"] == TRAINED]
    table = Table(
        "relation",
        "Scores and the layers' exponents and actions",
        [
            names("quantity", rows["quantity"].tolist()),
            column("units", [NAMES.get(k, k) for k in rows["kind"]]),
            column(
                "rho",
                [None if r is None or r != r else float(r) for r in rows["rho"]],
                digits=2,
                help="Spearman's rank correlation of a layer's mean score with the quantity, over "
                "layers; of six layers it is told from chance beyond 0.88",
            ),
            column("layers", [int(n) for n in rows["sites"]]),
            *_left_out(rows["left_out"].tolist()),
        ],
    )
    said = (
        "Do layers with a steeper spectrum or a smoother path have units that are explained "
        "better? A layer is the site of the same name in the analysis, or else the one of the same "
        "number. A few layers give a hint at most."
    )
    return [Prose([said]), table]
