"""Looking up verdicts by a few words of their claim."""

from __future__ import annotations

from polycode_plugins.experiments.base import Experiment
from polycode_plugins.experiments.claims import Numbers, Verdict, judge


def verdict(experiment: Experiment, numbers: Numbers, words: str) -> Verdict:
    found = [claim for claim in experiment.claims if words in claim.text]
    assert len(found) == 1, f"{len(found)} claims of {experiment.name} say {words!r}"
    return judge(found, numbers)[0]


def outcome(experiment: Experiment, numbers: Numbers, words: str) -> str:
    return verdict(experiment, numbers, words).outcome
