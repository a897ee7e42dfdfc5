"""What a comparison of kinds of units says, in words, with the floors in the same sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from polycode_plugins.explainers.comparison.decisions import (
    CONTROLS,
    disagreeing,
    sentence,
    untold,
)
from polycode_plugins.explainers.comparison.heat_texts import visible
from polycode_plugins.explainers.comparison.outcome import RANDOM, TRAINED
from polycode_plugins.explainers.comparison.plot import NAMES
from polycode_plugins.explainers.comparison.statistics import adjusting
from polycode_plugins.pages.cards import Card
from polycode_plugins.pages.pictures import picture_of

if TYPE_CHECKING:
    from polycode_plugins.explainers.comparison.contrasts import Contrast
    from polycode_plugins.explainers.comparison.outcome import Comparison

_NAMED = 3  # units without covariates that are named; of more, how many
#: What each score that is told is called in a sentence.
WORDS = {
    "correlation_random": "correlation on random texts",
    "correlation": "correlation on top and random texts",
    "detection": "balanced accuracy of detection",
    "fuzzing": "balanced accuracy of fuzzing",
}
_BESIDE = {
    "token-lookup": "a look-up of tokens by {}",
    "shuffled": "explanations of other units by {}",
}


def card(comparison: Comparison, *, drawn: bool) -> Card:
    """What it says, what could not be done and, if `drawn`, the picture layer by layer."""
    title = (
        f"Comparison({len(comparison)} units of {len(comparison.sites)} sites, "
        f"kinds: {', '.join(comparison.kinds)}, "
        f"explainer: {comparison.run['explainer']['explainer']})"
    )
    doubts = [str(warning) for warning in comparison.run.get("warnings", ())]
    doubts += [
        f"{n} of {len(comparison)} units have no explanation: {reason}"
        for reason, n in comparison.failures.items()
    ]
    image = picture_of(comparison.plot) if drawn and len(comparison) else ""
    said = answers(comparison) if len(comparison.kinds) > 1 else []
    return Card(title, said, doubts, "comparison.run['warnings'] and comparison.failures", image)


def answers(comparison: Comparison) -> list[str]:
    """What the comparison says, in words: differences by each score, then what controls decide.

    For the first kind of units beside each other one, by the score on random texts first.
    """
    if len(comparison.kinds) < 2:
        return []
    first, *others = comparison.kinds
    scores = comparison.headline_scores
    said = [headline(comparison, first, other, score) for other in others for score in scores]
    said += [s for kind in comparison.kinds if (s := noise(comparison, kind, scores[0]))]
    if "neuron" in comparison.kinds:
        controls = [c for c in CONTROLS if c in comparison.kinds]
        said += [sentence(comparison, control, scores[0]) for control in controls]
    return said


def noise(comparison: Comparison, kind: str, score: str) -> str:
    """The explainer's noise beside the spread of units; "" where each is explained once."""
    found = comparison.noise(kind, score)
    if found is None:
        return ""
    return (
        f"The {_word(comparison, score)} of one of the {NAMES.get(kind, kind)} varies by "
        f"{found.within:.3f} (standard deviation) from one explanation to the next, and by "
        f"{found.between:.3f} from unit to unit; {found.reliability:.0%} of the variance of the "
        f"means of {found.explanations:.0f} explanations is the units'."
    )


def headline(comparison: Comparison, first: str, second: str, score: str) -> str:
    """The difference of two kinds by one score, with its floors; or why it is not told."""
    why = untold(comparison, first, second, score)
    if why:
        a, b = _names(first, second)
        word = _word(comparison, score)
        return f"Whether {a} or {b} are explained better is not told by the {word}: {why}."
    *sites, overall = comparison.contrast(first, second, score)
    if overall.interval is None or overall.difference is None:
        return answer(overall) + _unscored(comparison, overall)
    word = _word(comparison, score)
    beside = _beside(comparison, overall)
    if disagreeing(overall):
        return disagreement(sites, overall, word, beside) + _adjusted(overall)
    known = [c.site for c in sites if c.difference is not None]
    where = f"at {visible(known[0])}" if len(known) == 1 else "over all sites"
    return answer(overall, word, beside, where)


def answer(
    overall: Contrast,
    word: str = "correlation",
    beside: str = "",
    where: str = "over all sites",
) -> str:
    """What the contrast over all sites says, in words.

    Args:
        overall: of two kinds.
        word: what the score is called.
        beside: what its floors say, at the end of the sentence.
        where: the sites that it is of.
    """
    first, second = _names(overall.first, overall.second)
    if overall.difference is None or overall.interval is None or overall.p_value is None:
        return f"Too few of the {first} and {second} have a score to compare them."
    low, high = overall.interval
    of = "" if overall.pairs is None else f" of {overall.pairs} pairs"
    p = f"p = {overall.p_value:.2g}"
    if low <= 0 <= high:
        said = (
            f"No difference that can be told from chance: {where} the {word} of the "
            f"{first} less that of the {second} is {_size(overall.difference, low, high)}, {p}{of}"
        )
    else:
        better, worse = (first, second) if low > 0 else (second, first)
        ends = (low, high) if low > 0 else (-high, -low)
        begin = f"{where[0].upper()}{where[1:]}"
        said = (
            f"{begin} the {better} are explained better than the {worse}, by a {word} of "
            f"{_size(abs(overall.difference), *ends)}, {p}{of}"
        )
    return f"{said}{beside}.{_adjusted(overall)}"


def disagreement(sites: Sequence[Contrast], overall: Contrast, word: str, beside: str) -> str:
    """Where sites differ in the difference: what it is at the ends, and where it can be told."""
    first, second = _names(overall.first, overall.second)
    known = sorted((c for c in sites if c.difference is not None), key=lambda c: c.difference or 0)
    parts = [f"{_plain(c.difference or 0)} at {c.site}" for c in (known[0], known[-1])]
    above = [c.site for c in known if c.interval is not None and c.interval[0] > 0]
    below = [c.site for c in known if c.interval is not None and c.interval[1] < 0]
    open_ = len(known) - len(above) - len(below)
    counts = [
        f"{first} are explained better at {len(above)}",
        f"worse at {len(below)}",
        f"neither can be told at {open_}",
    ]
    low, high = overall.interval or (0.0, 0.0)
    mean = _size(overall.difference or 0, low, high)
    return (
        f"The sites disagree on {first} and {second} (p = {overall.disagreement:.2g}): the "
        f"difference of the {word} goes from {parts[0]} to {parts[1]}; of {len(known)} sites "
        f"{', '.join(counts)}. The mean over sites, {mean}, is that of no "
        f"site{beside}."
    )


def _names(first: str, second: str) -> tuple[str, str]:
    return NAMES.get(first, first), NAMES.get(second, second)


def _word(comparison: Comparison, score: str) -> str:
    if score == "correlation" and "correlation_random" not in comparison.headline_scores:
        return "correlation"
    return WORDS.get(score, score.replace("_", " "))


def _beside(comparison: Comparison, overall: Contrast) -> str:
    """What floors and the control of random weights differ by, within the same sentence."""
    first, second, score = overall.first, overall.second, overall.score
    parts = []
    for floor, words in _BESIDE.items():
        if floor in comparison.floors:
            of = comparison.contrast(first, second, score, floor=floor)[-1]
            if of.difference is not None:
                parts.append(words.format(_plain(of.difference)))
    if RANDOM in comparison.weights:
        control = comparison.contrast(first, second, score, weights=RANDOM)[-1]
        if control.difference is not None and control.interval is not None:
            size = _size(control.difference, *control.interval)
            parts.append(f"the same network with its weights in random order by {size}")
    if "shuffled" not in comparison.floors:
        parts.append("no explanations of other units were scored, so chance is not known")
    if not parts:
        return ""
    a, b = _names(first, second)
    return f"; beside it, {a} less {b}: {', '.join(parts)}"


def _adjusted(overall: Contrast) -> str:
    """The difference at equal covariates, and which units it is about; "" where there is none."""
    first, second = _names(overall.first, overall.second)
    left_out = _left_out(overall)
    if overall.overlap is not None and overall.overlap < adjusting.COMMON:
        return (
            f" They share too little kurtosis and sparsity to be compared at equal ones.{left_out}"
        )
    if overall.adjusted is None or overall.adjusted_interval is None:
        return left_out
    low, high = overall.adjusted_interval
    verdict = "which may be none" if low <= 0 <= high else "so their distribution is not all of it"
    about = ""
    if overall.adjusted_n != overall.n and any(overall.adjusted_n):
        (a, b), (n, m) = overall.adjusted_n, overall.n
        about = f" (of {a} of {n} {first} and {b} of {m} {second})"
    return (
        f" Between {first} and {second} whose activations are equally heavy-tailed and sparse the "
        f"difference is {_size(overall.adjusted, low, high)}{about}, {verdict}.{left_out}"
    )


def _left_out(overall: Contrast) -> str:
    """The units that nothing at equal covariates is about, named."""
    units = overall.uncovered
    if not units:
        return ""
    named = ", ".join(visible(unit) for unit in units[:_NAMED])
    more = f" and {len(units) - _NAMED} more" if len(units) > _NAMED else ""
    return f" Constant on the texts and so without kurtosis: {named}{more}."


def _unscored(comparison: Comparison, overall: Contrast) -> str:
    """How many units of the two kinds have no score, and the commonest reason; "" for none."""
    units = [
        u for u in comparison if u.kind in (overall.first, overall.second) and u.weights == TRAINED
    ]
    without = [u for u in units if u.score(overall.score) is None]
    if not without:
        return ""
    reasons = Counter(u.why(overall.score) for u in without)
    (reason, count), *others = reasons.most_common()
    most = f" of {count}" if others else ""
    return (
        f" {len(without)} of {len(units)} have none; the {'commonest ' if others else ''}reason"
        f"{most}: {visible(reason)}."
    )


def _plain(value: float) -> str:
    return f"{value:.3f}".replace("-", "\u2212")


def _size(value: float, low: float, high: float) -> str:
    return f"{value:.3f} (95% interval {low:.3f} to {high:.3f})".replace("-", "\u2212")
