"""What is said beside the differences of two runs: what else differs, and what intervals hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from polycode_plugins.errors import DataError, PolycodeError
from polycode_plugins.runs.analysis import Analysis
from polycode_plugins.runs.cross_cka import same_rows
from polycode_plugins.runs.gathering import listed

if TYPE_CHECKING:
    from polycode_plugins.runs.difference.run_difference import Difference


def common_metrics(first: Analysis, second: Analysis) -> tuple[list[str], list[str]]:
    """Labels of metrics that both have, and what is to be said of their settings."""
    one, other = ({m.label: m for m in a.metric_objects} for a in (first, second))
    labels = [label for label in one if label in other and type(one[label]) is type(other[label])]
    if not labels:
        raise DataError(
            f"the runs have no metric in common: {', '.join(one)} and {', '.join(other)}; make "
            "both with the same metrics"
        )
    said = [
        f"{label} had other settings: {name} is {value!r} in the first run and "
        f"{other[label].options().get(name)!r} in the second, which may be all that differs."
        for label in labels
        for name, value in one[label].options().items()
        if value != other[label].options().get(name)
    ]
    left = [label for label in {**one, **other} if label not in labels]
    if left:
        said.append(f"Only one of the runs has {', '.join(left)}.")
    return labels, said


def run_notes(first: Analysis, second: Analysis) -> list[str]:
    """What else than the model may differ."""
    said = []
    prints = [(a.run.get("model") or {}).get("fingerprint") for a in (first, second)]
    if None not in prints and prints[0] == prints[1]:
        said.append("Both runs are of the same weights.")
    try:
        same_rows(first, second)
    except PolycodeError as error:
        said.append(
            "Nothing proves that both runs read the same rows, so differences may be those of the "
            f"data: {error}."
        )
    else:
        said.append("Both runs read the same rows.")
    for name in ("dtype", "adapter"):
        values = [(a.run.get("model") or {}).get(name) for a in (first, second)]
        if values[0] != values[1]:
            said.append(
                f"The {name} was {values[0]} in the first run and {values[1]} in the second."
            )
    versions = [a.run.get("polycode-plugins") for a in (first, second)]
    if versions[0] != versions[1]:
        said.append(f"The runs were made by versions {versions[0]} and {versions[1]}.")
    return said


def unpaired_notes(differences: Sequence[Difference], why: str) -> list[str]:
    """What the intervals hold: which are paired, and why others are not, each reason once.

    why: why none is.
    """
    bounded = [d for d in differences if d.interval is not None]
    paired = [d for d in bounded if d.paired]
    if not bounded:
        return []
    if why:
        return [
            "The intervals of differences are not paired but as of independent runs, too wide "
            f"where errors go together and too narrow where they go against one another: {why}."
        ]
    said = []
    if paired:
        said.append(
            f"{len(paired)} of {len(bounded)} intervals of differences are paired: both numbers "
            "are of the same rows, and how their errors go together was estimated from these and "
            "is counted on with care."
        )
    reasons: dict[str, list[Difference]] = {}
    for d in bounded:
        if d.unpaired:
            reasons.setdefault(d.unpaired, []).append(d)
    for reason, of in reasons.items():
        fields = listed(list(dict.fromkeys(d.field.replace("_", " ") for d in of)))
        metrics = listed(list(dict.fromkeys(d.metric for d in of)))
        sites = listed(list(dict.fromkeys(d.site for d in of)))
        said.append(f"Not paired, {fields} of {metrics} at {sites}: {reason}.")
    return said
