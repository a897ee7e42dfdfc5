"""The phrase of an explainer's answer: the one that was meant, or the reason why there is none.

Models put a heading above it, steps before it, reasons after it; they refuse, repeat an example of
the prompt, or say the same of every unit. What is not plainly a phrase about the unit is none.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

from polycode_plugins.explainers.language_model.prompts import EXAMPLES, PREFIX
from polycode_plugins.explainers.language_model.transport.failures import Unreadable
from polycode_plugins.explainers.language_model.transport.secrets import SHOWN

MANY, SHARE = 4, 0.25  # units of which one phrase may be said: so many, or such a share of all
LONG, NEAR = 6, 0.7  # words of an example that nobody writes by chance, and how many of them
COPIED = "the answer is an example of the prompt"
SAME = "the model says the same of many units"
REFUSAL = "the model refused"
REASONS = "the answer gives reasons and no explanation"

_DECOR = r"[*_#>`~\s\"'“”‘’«»]*"
_BEGINNING = rf"(?:(?:it|(?:(?:the|this) )?unit(?: \d+)?) )?{PREFIX}\b"
_MARKER = re.compile(
    rf"^{_DECOR}\[?(?:my |the |final |short |best |one[- ]line )*"
    r"(?:explanation|answer|summary|conclusion|response|result|phrase|description|hypothesis|"
    rf"pattern|feature)\]?{_DECOR}(?::|：|=>|->|→|[-–—]\s){_DECOR}(?P<rest>.*)$",
    re.IGNORECASE,
)
_ALONE = re.compile(
    rf"^{_DECOR}\[?(?:final |short )*(?:explanation|answer|summary|conclusion)\]?{_DECOR}$", re.I
)
_TAGGED = re.compile(
    r"<(answer|explanation|final|final_answer|output|response|phrase)>(.*?)</\1>", re.S | re.I
)
_VERBS = (
    r"(?:help|assist|provide|comply|do|answer|explain|determine|identify|discuss|continue|fulfil|"
    r"fulfill|generate|analy[sz]e|see|find|process|create|complete|engage|respond|work|give|"
    r"access|say|tell|support|share|offer|participate|describe|infer|make)"
)
_UNABLE = (
    r"I(?:'m|’m| am)? ?(?:can(?:'t|’t|not| not)|could(?:n't|n’t| not)|won(?:'t|’t)|will not|unable "
    r"to|not able to|not comfortable|do(?:n't|n’t| not) (?:have|feel|think I can)|must decline|"
    r"have to decline|decline to|refuse to)"
)
_REFUSALS = re.compile(
    rf"^(?:(?:I(?:'m|’m| am) (?:very |so |really )?sorry|sorry|my apologies|I apologi[sz]e|"
    rf"unfortunately)\b[,.;:!]?\s+(?:but\b|I\b|as an AI|for\b|we\b|this\b|that\b|there\b|the\b)|"
    rf"{_UNABLE}\b\s+(?:\w+ ){{0,3}}?{_VERBS}\b|{_UNABLE}\s+(?:with|the|enough|access|any|"
    r"information)\b|as an? (?:AI|(?:large )?language model|assistant)\b|"
    r"I (?:do not|don't|don’t) know|I(?:'m|’m| am) not sure|"
    r"(?:es tut mir leid|ich kann (?:dabei|das|diese\w*|ihnen|dir)? ?nicht|"
    r"je suis désolée?|je ne peux pas|"
    r"lo siento|no puedo|mi dispiace|desculpe|sinto muito)\b|"
    r"(?:抱歉|对不起|很抱歉|我无法|申し訳|すみません|죄송|извините|к сожалению))",
    re.IGNORECASE,
)
_PREFACE = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|alright|great|absolutely|yes|here(?:'s|’s| is| are))\b"
    r".*$",
    re.IGNORECASE,
)
_STEPS = re.compile(
    rf"^{_DECOR}(?:step \d+\s*[:.)–—-]|(?:first|second|third|next|then|now|finally)(?:ly)?, "
    r"(?:I|we|let|look|the|it|you|this|there)\b|let(?:'s|’s| me| us)\b|looking at\b|"
    r"to (?:find|determine|work|figure|identify|answer|explain)\b[^,]*, (?:I|we|let|look|you)\b|"
    r"(?:we|I)(?:'ll|’ll| will| need to| should| must| have to| notice| can see| see that| observe|"
    r" think (?:that|it|the|this))\b|(?:okay|ok|alright|hmm+|so|wait|well)[,.]+ (?:so|let|I|we|the|"
    r"here|now|this|looking)\b|the (?:task|user|question|prompt|assistant) (?:is|asks|wants|says|"
    r"shows|gives)\b|in (?:the|this) (?:first|given) text|"
    r"(?:reasoning|thought|thinking|analysis):)",
    re.IGNORECASE,
)
_PROMPTED = re.compile(
    r"whole number from 0|somebody could use to predict|out what the active tokens share", re.I
)


def explanation(text: str) -> str:
    """The phrase of an explainer's answer, on one line, without the beginning it goes on from.

    Args:
        text: the answer without what was thought (`message.text_of`).

    Raises:
        Unreadable: where there is no phrase, or one that says nothing of the unit.
    """
    body = _unwrapped(text.strip())
    if _REFUSALS.match(body.lstrip("*_#> \"'“")):
        raise Unreadable(REFUSAL)
    line = _phrase_line([stripped for raw in body.splitlines() if (stripped := raw.strip())])
    if re.search(r"\t-?\d", line) or _PROMPTED.search(line):
        raise Unreadable("the answer repeats the prompt")
    phrase = _bare(line)
    if not re.search(r"\w", phrase):
        raise Unreadable("the explanation is empty")
    if _REFUSALS.match(phrase):
        raise Unreadable(REFUSAL)
    if _STEPS.match(phrase):
        raise Unreadable(REASONS)
    if SHOWN in phrase:
        raise Unreadable("the answer repeats the key")
    if _copied(plain(phrase)):
        raise Unreadable(COPIED)
    return phrase


def repeated(phrases: Sequence[str | None]) -> set[str]:
    """Those of the phrases, as `plain` gives them, that are said of too many units to be of one.

    Args:
        phrases: one for each unit that was asked about together; None where there is none.
    """
    counts = Counter(plain(phrase) for phrase in phrases if phrase is not None)
    most = max(MANY, SHARE * counts.total())
    return {phrase for phrase, count in counts.items() if count > most}


def plain(phrase: str) -> str:
    """A phrase without case, marks and articles: equal for what says the same in the same words."""
    words = re.findall(r"\w+", phrase.lower())
    return " ".join(word for word in words if word not in ("a", "an", "the"))


_EXAMPLES = {plain(phrase) for phrase, _ in EXAMPLES}


def _copied(phrase: str) -> bool:
    """Whether a phrase is an example of the prompt, or a long one with a word or two changed."""
    if phrase in _EXAMPLES:
        return True
    words = phrase.split()
    return any(
        SequenceMatcher(None, words, example.split(), autojunk=False).ratio() > NEAR
        for example in _EXAMPLES
        if len(example.split()) >= LONG
    )


def _unwrapped(text: str) -> str:
    """What stands in tags, a box, a fence or the JSON that an answer is."""
    tagged = _TAGGED.findall(text)
    if tagged:
        text = tagged[-1][1].strip()
    boxed = re.findall(r"\\boxed\{(?:\\text\{)?([^{}]+)\}", text)
    if boxed:
        text = boxed[-1].strip()
    fenced = re.fullmatch(r"```\w*\s*(.*?)\s*```", text, flags=re.DOTALL)
    if fenced:
        text = fenced.group(1)
    if text.startswith("{"):
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Unreadable("the answer is no phrase") from error
        said = [v for v in answer.values() if isinstance(v, str)]
        named = [answer[n] for n in ("explanation", "answer", "phrase") if n in answer]
        chosen = [v for v in named if isinstance(v, str)] or said
        if len(chosen) != 1:
            raise Unreadable("the answer is no phrase")
        text = chosen[0].strip()
    return text


def _phrase_line(lines: list[str]) -> str:
    """The line that holds the phrase: after the last marker, else the first that is no heading."""
    if not lines:
        raise Unreadable("the explanation is empty")
    beginnings = [i for i, line in enumerate(lines) if _begins(line)]
    for i in reversed(range(len(lines))):
        marked = _MARKER.match(lines[i])
        if marked is None and not _ALONE.match(lines[i]):
            continue
        if i > (beginnings or [-1])[0] >= 0 and not _STEPS.match(lines[0]):
            continue  # what comes after the phrase tells more of it
        if marked is not None and re.search(r"\w", marked["rest"]):
            return marked["rest"]
        if i + 1 < len(lines):
            return _phrase_line(lines[i + 1 :])
        raise Unreadable("the explanation is a heading with nothing below it")
    if beginnings:
        at = beginnings[0]
        below = at + 1 < len(lines) and not _bare(lines[at])
        return lines[at + 1 if below else at]
    first = lines[0]
    if _is_heading(first):
        if len(lines) > 1:
            return _phrase_line(lines[1:])
        if _STEPS.match(first):
            raise Unreadable(REASONS)
        raise Unreadable("the explanation is a heading with nothing below it")
    return first


def _begins(line: str) -> bool:
    """Whether a line goes on from the beginning that the prompt gives."""
    return re.match(rf"{_DECOR}{_BEGINNING}", line, re.IGNORECASE) is not None


def _is_heading(line: str) -> bool:
    bare = line.strip("*_ ")
    if bare.endswith((":", "：")) or line.startswith("#") or re.fullmatch(r"[-=*_]{3,}", line):
        return True
    return bool(_PREFACE.match(bare)) and bare.endswith((":", "!", "."))


def _bare(line: str) -> str:
    found = re.sub(r"^(?:[-*•]\s+|\d+[.)]\s+)", "", line.strip())
    found = re.sub(r"(\*\*|__|\*|(?<!\w)_|`)(\S.*?)\1(?!\w)", r"\2", found).strip("*#` ")
    found = re.sub(rf"^{_BEGINNING}:?\s*", "", found, flags=re.IGNORECASE)
    found = re.sub(r"[\x00-\x1f\x7f]+", " ", found).strip()
    # A full stop after a quotation is left there, unless all is one quotation.
    whole = re.fullmatch(r"[\"“«]([^\"“”«»]+)[\"”»]\.?", found)
    found = whole.group(1).strip() if whole else found
    return re.sub(r"(?<=[\w)\]])\.$", "", found)
