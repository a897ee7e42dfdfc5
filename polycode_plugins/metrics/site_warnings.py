"""What keeps results from meaning what they seem to: each sentence once, with its sites.

Python, the terminal, the report and JSON show these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from polycode_plugins.metrics.base import Grave, Result

_NUMBER = re.compile(r"\d[\d.,]*")
_QUOTED = re.compile("“[^”]*”")
_NAMED = 3  # sites


@dataclass(frozen=True)
class SiteWarning:
    """One sentence of one metric.

    Attributes:
        metric: the metric's label.
        sites: the sites that say it, by depth.
        text: the sentence; with the numbers of the first site where they differ.
        differs: whether they do.
        total: sites of the analysis.
        grave: whether the metric's first number is not to be read at these sites.
    """

    metric: str
    sites: tuple[str, ...]
    text: str
    differs: bool
    total: int
    grave: bool = False

    def __str__(self) -> str:
        example = f" (with the numbers of {self.sites[0]})" if self.differs else ""
        return f"{where(self.sites, self.total)}{example}: {self.text}"


def site_warnings(label: str, results: Mapping[str, Result]) -> list[SiteWarning]:
    """The warnings of one metric's results {site: result}, in order.

    Sentences that differ in numbers and quotations alone are one.
    """
    said: dict[str, dict[str, str]] = {}
    for site, result in results.items():
        warnings = result.warnings
        for text in [warnings] if isinstance(warnings, str) else warnings or ():
            kind = _NUMBER.sub("#", _QUOTED.sub("“”", str(text)))
            said.setdefault(kind, {})[site] = text
    return [
        SiteWarning(
            metric=label,
            sites=tuple(texts),
            text=next(iter(texts.values())),
            differs=len(set(texts.values())) > 1,
            total=len(results),
            grave=any(isinstance(text, Grave) for text in texts.values()),
        )
        for texts in said.values()
    ]


def all_warnings(
    labels: Iterable[str], results: Mapping[str, Mapping[str, Result]]
) -> tuple[SiteWarning, ...]:
    """The warnings of all metrics, given {site: {label: result}}."""
    return tuple(
        warning
        for label in labels
        for warning in site_warnings(label, {site: held[label] for site, held in results.items()})
    )


def where(sites: Sequence[str], total: int) -> str:
    """The sites by name, or by number where they are many."""
    if len(sites) == total:
        return "At every site" if total > 1 else f"At {sites[0]}"
    if len(sites) <= _NAMED:
        return f"At {', '.join(sites)}"
    return f"At {len(sites)} of {total} sites ({', '.join(sites[:_NAMED])}, ...)"
