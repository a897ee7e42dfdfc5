"""The contracts of explaining: records of a unit, explainers, simulators and judges.

Everything goes in lists, so that a remote backend can have many requests under way at once and an
offline one can ignore that. One unit that fails fails alone: its explanation or simulation says so
(`state`, `reason`), is counted, and is never scored. Only what makes the whole run pointless (a
wrong key, an unknown model) or must stop it (a budget that is spent) raises a PolycodeError.

An explainer is a plugin of the group `polycode_plugins.explainers`: a class or factory that is
called with its options as keywords and gives an `Explainer`. Two options have a meaning to
`compare`: `store`, the file for answers that are paid for, lies in the folder of the run unless it
is given; `progress` follows the run's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from polycode_plugins.explainers.costs import FREE, Cost, Spent

Floats = NDArray[np.float64]
State = Literal["ok", "failed"]
Task = Literal["detection", "fuzzing"]

#: The top of the scale on which explainers are shown activations and simulators answer.
LEVELS = 10
#: A unit fires where it reaches this level: what AUPRC, detection, fuzzing and negatives go by.
FIRES = 5


# -- what is explained -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Record:
    """One unit on one text.

    Attributes:
        tokens: the tokens that count, one string each, in order. Padding and special tokens are
            left out of both arrays, so a token belongs to its activation by index. Joined they need
            not be the text: a token that is half a character is written as its bytes (`\\xe2`).
        activations: float32 [tokens], times the unit's sign; negative values occur.
        unit: the unit's name.
        document: the document the text is of.
        row: index of the text in the whole data.
    """

    tokens: tuple[str, ...]
    activations: NDArray[np.float32]
    unit: str
    document: int
    row: int


@dataclass(frozen=True, eq=False)
class RecordSet:
    """The records of one split, each kind in the order of its ranking.

    Attributes:
        top: texts with the highest maxima, highest first.
        random: texts drawn at random.
        quantile: texts drawn at random, one from each quantile of the maxima, lowest first.
        negative: hard negatives: texts that hold the tokens on which the unit is high elsewhere,
            and on which it does not fire; most alike first.
    """

    top: tuple[Record, ...] = ()
    random: tuple[Record, ...] = ()
    quantile: tuple[Record, ...] = ()
    negative: tuple[Record, ...] = ()

    def all(self) -> tuple[Record, ...]:
        """Every record: top, random, quantile, negative."""
        return self.top + self.random + self.quantile + self.negative


@dataclass(frozen=True, eq=False)
class UnitRecords:
    """One unit and its records, split so that no document is in two of the splits.

    Attributes:
        unit: the unit's name, unique within a site.
        site: where the unit reads.
        kind: "neuron", "projection", "component", "independent", "feature", "direction", or
            "recorded".
        sign: +1 or -1, what the activations were multiplied with.
        protocol: the name of the protocol that split the records.
        explain: what the explainer may see.
        calibration: what a calibration of the simulator may be fitted on.
        score: what the scores are computed on.
        notes: what a reader of its scores should know of the records, for those that were read.
    """

    unit: str
    site: str
    kind: str
    sign: int
    protocol: str
    explain: RecordSet
    calibration: RecordSet
    score: RecordSet
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    @cached_property
    def maximum(self) -> float:
        """The unit of normalisation: the highest activation among the explaining records."""
        return max((float(r.activations.max()) for r in self.explain.all()), default=0.0)

    def levels(self, record: Record) -> NDArray[np.int64]:
        """A record's activations as whole numbers 0-10 [tokens]; see `levels_of`."""
        return levels_of(record.activations, self.maximum)


def direction_of(unit: UnitRecords) -> str:
    """The name of the direction that a unit reads: the same for both signs, unique within a site.

    Where both signs are units, the name of the negative one ends in "(-)".
    """
    return unit.unit.removesuffix(" (-)") if unit.sign < 0 else unit.unit


def levels_of(activations: NDArray[Any], maximum: float) -> NDArray[np.int64]:
    """min(10, floor(10 relu(x) / maximum)), all zeros where maximum <= 0 (OpenAI 2023)."""
    if not maximum > 0:
        return np.zeros(len(activations), dtype=np.int64)
    scaled = np.floor(LEVELS * np.maximum(activations.astype(np.float64), 0) / maximum)
    return np.minimum(LEVELS, scaled).astype(np.int64)


# -- what explainers and simulators answer ---------------------------------------------------------


@dataclass(frozen=True)
class Explanation:
    """What an explainer says of a unit.

    Attributes:
        unit: the unit's name.
        explainer: the explainer's name.
        text: the explanation for people and for simulators that read text; "" where it failed.
        data: JSON values for the simulator that goes with an offline explainer; may be empty.
        state: "failed" where there is no explanation; it is then never simulated or scored.
        reason: why it failed, in one short sentence that is the same for the same cause (failures
            are counted by it); "" where it is ok.
        cost: what it took.
    """

    unit: str
    explainer: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
    state: State = "ok"
    reason: str = ""
    cost: Cost = FREE

    @classmethod
    def failed(cls, unit: str, explainer: str, reason: str, cost: Cost = FREE) -> Explanation:
        """An explanation that could not be had."""
        return cls(unit, explainer, "", {}, "failed", reason, cost)


@dataclass(frozen=True, eq=False)
class Simulation:
    """The activations that a simulator expects on one text.

    Attributes:
        expected: float64 [tokens] on the 0-10 scale, one for each token it was given; None where
            the simulation failed.
        state: "failed" where there is none.
        reason: why, as in `Explanation`.
        cost: what it took; where one request answers several texts, it is counted at one of them.
    """

    expected: Floats | None
    state: State = "ok"
    reason: str = ""
    cost: Cost = FREE

    @classmethod
    def failed(cls, reason: str, cost: Cost = FREE) -> Simulation:
        """A simulation that could not be had."""
        return cls(None, "failed", reason, cost)


@dataclass(frozen=True)
class SimulationTask:
    """One explanation, and the texts (tokens of each) on which to simulate its unit."""

    explanation: Explanation
    texts: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class JudgeTask:
    """One explanation, and the texts to judge by it.

    Attributes:
        explanation: what the judge reads.
        task: "detection": does the unit fire somewhere in the text? "fuzzing": does the unit fire
            at the marked tokens?
        texts: the tokens of each text.
        marked: for fuzzing, the indices of the marked tokens of each text; empty for detection.
    """

    explanation: Explanation
    task: Task
    texts: tuple[tuple[str, ...], ...]
    marked: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Verdict:
    """A judge's answer on one text.

    Attributes:
        answer: True, False, or None where it failed.
        reason: why it failed.
        cost: what it took.
        probability: of True, in [0, 1], where the judge knows one: what is ranked by it is told
            apart even where the answers are all the same.
    """

    answer: bool | None
    reason: str = ""
    cost: Cost = FREE
    probability: float | None = None


# -- the plugins -----------------------------------------------------------------------------------


class Simulator(ABC):
    """Predicts activations from an explanation and tokens alone."""

    #: Written with every score: scores of different simulators are never pooled.
    name: ClassVar[str]

    @abstractmethod
    def simulate_many(self, tasks: Sequence[SimulationTask]) -> list[list[Simulation]]:
        """For each task one simulation per text, in order; failures are states, not exceptions."""

    def simulate(
        self, explanation: Explanation, texts: Sequence[Sequence[str]]
    ) -> list[Simulation]:
        """One explanation on several texts."""
        task = SimulationTask(explanation, tuple(tuple(tokens) for tokens in texts))
        return self.simulate_many([task])[0]

    def describe(self) -> dict[str, Any]:
        """JSON values that decide its answers (model, prompt version, method); never a key."""
        return {"simulator": self.name}


class Judge(ABC):
    """Answers yes or no by an explanation: for models that cannot simulate."""

    name: ClassVar[str]

    @abstractmethod
    def judge_many(self, tasks: Sequence[JudgeTask]) -> list[list[Verdict]]:
        """For each task one verdict per text, in order; failures are None, not exceptions."""

    def describe(self) -> dict[str, Any]:
        """JSON values that decide its answers; never a key."""
        return {"judge": self.name}


class Explainer(ABC):
    """Says what a unit responds to, from its explaining records alone."""

    #: The name of the entry point.
    name: ClassVar[str]

    @abstractmethod
    def explain_many(self, units: Sequence[UnitRecords], *, seed: int = 0) -> list[Explanation]:
        """One explanation per unit, in order, from `unit.explain` and `unit.levels` alone.

        A unit that cannot be explained (a refusal, an unparsable answer) gives
        `Explanation.failed`. A budget that is spent is none of a unit's faults: it raises
        `language_model.BudgetError`, a PolycodeError, with all answers saved, so that the same call
        with a larger budget goes on where it stopped and no unit is missing from the scores.

        Args:
            units: with their records; the other splits must not be looked at.
            seed: of whatever is drawn.
        """

    def explain(self, unit: UnitRecords, *, seed: int = 0) -> Explanation:
        """One unit's explanation."""
        return self.explain_many([unit], seed=seed)[0]

    @abstractmethod
    def simulator(self) -> Simulator:
        """The simulator that goes with its explanations; a backend may be probed here, once."""

    def judge(self) -> Judge | None:
        """The judge that goes with its explanations; None where its simulator judges."""
        return None

    def describe(self) -> dict[str, Any]:
        """JSON values that decide its answers (options, model, prompt version); never a key."""
        return {"explainer": self.name}

    def warnings(self) -> list[str]:
        """Sentences that a reader of the scores should know; asked for when all is answered."""
        return []

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back files and connections, when nothing more is asked; may be called twice."""


# -- what may be had beside: costs -----------------------------------------------------------------


class PaidExplainer(Explainer):
    """An explainer whose answers are paid for, or kept.

    It gets dry runs, and the record of a comparison says what it took. A dry run sends nothing at
    all: not even what would find out what a backend can do.
    """

    @abstractmethod
    def estimate(self, units: Sequence[UnitRecords], *, seed: int = 0) -> Cost:
        """What `explain_many` would take at most, without sending anything."""

    def known(self, units: Sequence[UnitRecords], *, seed: int = 0) -> list[Explanation | None]:
        """What `explain_many` would give without asking, as after a run that was cut short.

        A dry run counts what follows from it exactly; None for a unit that is to be asked for.
        """
        return [None for _ in units]

    def estimators(self) -> tuple[Simulator, Judge | None]:
        """Its simulator and judge for `estimate` alone; a backend that is not known is guessed.

        To be written where `simulator` or `judge` ask a backend what it can do.
        """
        return self.simulator(), self.judge()

    def unknown(self) -> str:
        """What `estimate` could not know, in half a sentence; "" where it knew all."""
        return ""

    def dollars(self, cost: Cost) -> float | None:
        """The price of `cost` at most, in US dollars; None where no prices are known."""
        return None

    def spent(self) -> Spent | None:
        """What all the answers that it keeps have taken; None where it keeps none."""
        return None


@runtime_checkable
class PaidSimulator(Protocol):
    """A simulator that says beforehand what it takes."""

    def estimate(self, tasks: Sequence[SimulationTask]) -> Cost:
        """What `simulate_many` would take at most, without sending anything."""


@runtime_checkable
class PaidJudge(Protocol):
    """A judge that says beforehand what it takes."""

    def estimate(self, tasks: Sequence[JudgeTask]) -> Cost:
        """What `judge_many` would take at most, without sending anything."""
