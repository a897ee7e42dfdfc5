"""Checks of explainers: what they may look at, and what they answer whatever happens.

The units are planted: one that is high on one token, one that draws on several, one that is silent,
one without any record.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, NoReturn, cast

import numpy as np

from polycode_plugins.explainers.base import (
    LEVELS,
    Explanation,
    Record,
    RecordSet,
    SimulationTask,
    UnitRecords,
)
from polycode_plugins.testing.cases import ExplainerCase
from polycode_plugins.testing.outcome import CheckFailed, fail, require, skip

KINDS = ("neuron", "projection", "component", "independent", "direction", "recorded")
_WORDS = ("the", " cat", " sat", " on", " a", " mat", ".", " dog", " ran", " home", "\\xe2", "\n")
TEXTS = ((" the", " cat", " ran"), ("unseen", " words", " only", "."), ("x",))


class PeekedError(CheckFailed):
    """An explainer looked at records that are kept from it."""


class _Forbidden:
    """Stands for the records of a split that must not be looked at."""

    def __getattribute__(self, name: str) -> NoReturn:
        raise PeekedError(f"the explainer looks at records it is not shown (.{name})")


def answers_are_in_order(case: ExplainerCase) -> None:
    """One explanation for each unit, in order, under the unit's and the explainer's names."""
    explainer, units = case.make(), planted()
    found = explainer.explain_many(units)
    require(len(found) == len(units), f"{len(units)} units give {len(found)} explanations")
    for unit, explanation in zip(units, found, strict=True):
        require(explanation.unit == unit.unit, f"{unit.unit!r} is answered as {explanation.unit!r}")
        require(
            explanation.explainer == explainer.name,
            f"the explanation says it is by {explanation.explainer!r}, not {explainer.name!r}",
        )
    ok = next((e for e in found if e.state == "ok"), None)
    require(ok is not None, "no unit is explained, not even one that is high on a single token")
    require(explainer.explain_many([]) == [], "no units give explanations")


def equal_seeds_give_equal_answers(case: ExplainerCase) -> None:
    """The same seed gives the same explanations, also from a new explainer."""
    explainer, units = case.make(), planted()
    first = _plain(explainer.explain_many(units, seed=3))
    require(
        _plain(explainer.explain_many(units, seed=3)) == first, "a second call answers otherwise"
    )
    require(
        _plain(case.make().explain_many(units, seed=3)) == first,
        "another explainer with the same options answers otherwise",
    )


def every_kind_has_one_schema(case: ExplainerCase) -> None:
    """The kind of a unit changes nothing: neurons and projections are explained alike."""
    explainer = case.make()
    answers = {
        kind: _plain(
            explainer.explain_many([dataclasses.replace(u, kind=kind) for u in planted()], seed=1)
        )
        for kind in KINDS
    }
    for kind, found in answers.items():
        require(found == answers["neuron"], f"a {kind} is explained otherwise than a neuron")


def failures_are_states(case: ExplainerCase) -> None:
    """What cannot be explained says so with a reason, raises nothing and harms no other unit."""
    explainer = case.make()
    explained, *_, silent, empty = planted()
    alone = explainer.explain_many([explained], seed=2)[0]
    for unit in (silent, empty):
        found = explainer.explain_many([unit, explained], seed=2)
        for explanation in found:
            if explanation.state == "failed":
                require(bool(explanation.reason), "an explanation failed and gives no reason")
                require(not explanation.text, "an explanation failed and has a text all the same")
            else:
                require(bool(explanation.text.strip()), "an explanation is ok and has no text")
        require(
            found[1].state == alone.state, "a unit that cannot be explained takes another one along"
        )


def scores_stay_unseen(case: ExplainerCase) -> None:
    """Only the explaining records are looked at: not those it is scored or calibrated on."""
    units = planted()
    open_ = _plain(case.make().explain_many(units, seed=4))
    kept = cast(RecordSet, _Forbidden())
    guarded = [dataclasses.replace(u, score=kept, calibration=kept) for u in units]
    require(
        _plain(case.make().explain_many(guarded, seed=4)) == open_,
        "without the scoring records the explanations are other ones",
    )


def records_are_left_alone(case: ExplainerCase) -> None:
    """The records that are shown are not changed."""
    units = planted()
    before = [r.activations.copy() for u in units for r in u.explain.all()]
    case.make().explain_many(units)
    after = [r.activations for u in units for r in u.explain.all()]
    same = all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    require(same, "the activations of a record were changed")


def simulations_fit_their_texts(case: ExplainerCase) -> None:
    """A simulation has one finite number from 0 to 10 for each token, or a reason why not."""
    explainer = case.make()
    explanations = _explained(explainer.explain_many(planted()))
    simulator = explainer.simulator()
    tasks = [SimulationTask(e, TEXTS) for e in explanations]
    found = simulator.simulate_many(tasks)
    require([len(f) for f in found] == [len(TEXTS)] * len(tasks), "texts and simulations differ")
    for simulations in found:
        for text, simulation in zip(TEXTS, simulations, strict=True):
            if simulation.state == "failed":
                require(bool(simulation.reason), "a simulation failed and gives no reason")
                require(simulation.expected is None, "a simulation failed and has numbers")
                continue
            values = simulation.expected
            require(values is not None, "a simulation is ok and has no numbers")
            assert values is not None
            require(values.shape == (len(text),), f"{len(text)} tokens give {values.shape} numbers")
            fits = bool(((values >= 0) & (values <= LEVELS)).all())  # NaN is not
            require(fits, f"a simulation leaves the scale from 0 to {LEVELS}: {values}")


def simulations_read_explanations_alone(case: ExplainerCase) -> None:
    """A simulator made later, from saved explanations, answers the same."""
    explainer = case.make()
    explanations = _explained(explainer.explain_many(planted(), seed=5))
    here = explainer.simulator().simulate_many([SimulationTask(e, TEXTS) for e in explanations])
    saved = json.loads(json.dumps([dataclasses.asdict(e) for e in explanations]))
    loaded = [dataclasses.replace(e, text=s["text"], data=s["data"]) for e, s in
              zip(explanations, saved, strict=True)]  # fmt: skip
    there = case.make().simulator().simulate_many([SimulationTask(e, TEXTS) for e in loaded])
    for ours, theirs in zip(here, there, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            same = a.state == b.state and (
                a.expected is b.expected is None or np.array_equal(a.expected, b.expected)  # type: ignore[arg-type]
            )
            require(same, "explanations that were saved are simulated otherwise")


def descriptions_are_json(case: ExplainerCase) -> None:
    """Explanations and descriptions are JSON values; answers are told apart by the latter."""
    explainer = case.make()
    described = json.dumps([explainer.describe(), explainer.simulator().describe()])
    other = case.make()
    again = json.dumps([other.describe(), other.simulator().describe()])
    require(described == again, "describe() gives other values the second time")
    for explanation in explainer.explain_many(planted()):
        json.dumps(dataclasses.asdict(explanation), allow_nan=False)


CHECKS = (
    answers_are_in_order,
    equal_seeds_give_equal_answers,
    every_kind_has_one_schema,
    failures_are_states,
    scores_stay_unseen,
    records_are_left_alone,
    simulations_fit_their_texts,
    simulations_read_explanations_alone,
    descriptions_are_json,
)


def planted() -> list[UnitRecords]:
    """Units with known records: one token, several tokens, silent, without a record."""
    rng = np.random.default_rng(7)
    weights = {
        "one": {" cat": 4.0},
        "several": {" cat": 1.0, " dog": 2.0, "the": 0.5, ".": -1.0},
        "silent": {},
    }
    units = [_unit(name, weight, rng) for name, weight in weights.items()]
    nothing = RecordSet()
    return [*units, UnitRecords("empty", "site", "neuron", 1, "planted", nothing, nothing, nothing)]


def _unit(name: str, weight: dict[str, float], rng: np.random.Generator) -> UnitRecords:
    def records(first_row: int, n: int) -> tuple[Record, ...]:
        made = []
        for row in range(first_row, first_row + n):
            tokens = tuple(str(t) for t in rng.choice(_WORDS, size=12))
            values = np.array([weight.get(t, -0.1) for t in tokens], dtype=np.float32)
            made.append(Record(tokens, values, name, row, row))
        return tuple(sorted(made, key=lambda r: -float(r.activations.max())))

    splits = [
        RecordSet(records(at, 6), records(at + 6, 4), records(at + 10, 4)) for at in (0, 100, 200)
    ]
    return UnitRecords(name, "site", "neuron", 1, "planted", *splits)


def _explained(found: Sequence[Explanation]) -> list[Explanation]:
    ok = [e for e in found if e.state == "ok"]
    if not ok:
        skip("no unit was explained, so there is nothing to simulate")
    return ok


def _plain(found: Sequence[Explanation]) -> list[dict[str, Any]]:
    """Explanations without what they cost, which a store may save the second time."""
    for explanation in found:
        if not isinstance(explanation, Explanation):
            fail(f"explain_many gives a {type(explanation).__name__}, not an Explanation")
    return [dataclasses.asdict(dataclasses.replace(e, cost=type(e.cost)())) for e in found]
