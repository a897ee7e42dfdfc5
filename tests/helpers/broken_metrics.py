"""Metrics that each break one promise: (check that has to fail, how)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch

from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics.base import Accumulator, Metric, Result
from polycode_plugins.metrics.influences import Influences


class Sums(Accumulator):
    """Count and sum of squares; right as it stands."""

    name = "sums"

    def __init__(self):
        self.count, self.total = 0, torch.zeros((), dtype=torch.float64)

    def options(self):
        return {}

    def update(self, activations):
        rows = activations.matrix().double()
        self.count, self.total = self.count + len(rows), self.total + rows.square().sum()

    def merge(self, other):
        self.count, self.total = self.count + other.count, self.total + other.total

    def state(self):
        return {"count": torch.tensor(self.count), "total": self.total}

    def load_state(self, state):
        if set(state) != {"count", "total"}:
            raise StateError("other tensors are needed")
        self.count, self.total = int(state["count"]), state["total"].clone()

    @property
    def n_samples(self):
        return self.count

    def mean(self):
        if not self.count:
            raise DataError("no sample came")
        return float(self.total) / self.count


@dataclass(frozen=True, eq=False)
class PowerResult(Result):
    power: float


@dataclass(frozen=True)
class Power(Metric):
    """Mean square norm of a sample; right as it stands."""

    name: ClassVar[str] = "power"
    result: ClassVar[type[Result]] = PowerResult
    sums: ClassVar[type[Sums]] = Sums

    def accumulators(self):
        return {"sums": self.sums()}

    def compute(self, accumulators, site):
        return PowerResult(accumulators["sums"].mean())

    def influences(self, accumulators, result, samples):
        return Influences({"power": samples.double().square().sum(1).numpy()})


def with_sums(kind):
    @dataclass(frozen=True)
    class Broken(Power):
        sums: ClassVar[type[Sums]] = kind

    return Broken


class PerBatch(Sums):
    """A mean of means of batches."""

    def update(self, activations):
        rows = activations.matrix().double()
        if len(rows):
            self.total, self.count = self.total + rows.square().sum() / len(rows), self.count + 1


class Averaging(Sums):
    """Merges to the plain mean of two parts, whatever their size."""

    def merge(self, other):
        if not other.count or not self.count:
            return super().merge(other)
        count = self.count + other.count
        self.total = (self.total / self.count + other.total / other.count) / 2 * count
        self.count = count
        return None


class Leftist(Sums):
    """Loses what it has when the other has seen later rows less often."""

    def merge(self, other):
        if self.count > other.count:
            self.total = self.total * 1.5
        super().merge(other)


class Losing(Sums):
    """An empty one counts for one sample."""

    def merge(self, other):
        super().merge(other)
        self.count += not other.count


class Emptying(Sums):
    def merge(self, other):
        super().merge(other)
        other.total = torch.zeros((), dtype=torch.float64)


class Ordered(Sums):
    def update(self, activations):
        rows = activations.matrix().double()
        weight = torch.arange(self.count, self.count + len(rows), dtype=torch.float64)
        self.total = self.total + (rows.square().sum(1) * weight).sum()
        self.count += len(rows)


class Keeping(Sums):
    """Keeps the batches themselves."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def update(self, activations):
        self.kept.append(activations.matrix())

    def mean(self):
        return float(torch.cat(self.kept).double().square().sum(1).mean())


class Forgetful(Sums):
    def load_state(self, state):
        super().load_state(state)
        self.total = self.total.float().double()


class LowPrecision(Sums):
    def update(self, activations):
        rows = activations.matrix()
        self.count, self.total = self.count + len(rows), self.total + rows.square().sum().double()


@dataclass(frozen=True)
class Unsettled(Power):
    power: float = 2.0

    def options(self):
        return {"label": self.label}

    @classmethod
    def from_options(cls, options):
        return cls(power=3.0, **options)


@dataclass(frozen=True)
class Doubled(Power):
    def compute(self, accumulators, site):
        return PowerResult(2 * accumulators["sums"].mean())


class Moments(Sums):
    """Divides by what can be zero."""

    def mean(self):
        return float(self.total / self.count)


class Cornered(Sums):
    """Its result at data on a line, or at a constant, is NaN."""

    def __init__(self):
        super().__init__()
        self.gram = 0

    def update(self, activations):
        super().update(activations)
        rows = activations.matrix().double()
        self.gram = self.gram + rows.T @ rows


class Constant(Cornered):
    def mean(self):
        flat = float(self.gram.std()) < 1e-9
        return float("nan") if flat else super().mean()


class Line(Cornered):
    def mean(self):
        rank = int(torch.linalg.matrix_rank(self.gram))
        constant = float(self.gram.std()) < 1e-9
        return float("inf") if rank == 1 and not constant else super().mean()


@dataclass(frozen=True)
class Hopeful(Power):
    """Takes NaN for zero."""

    def measure(self, values, **options):
        return super().measure(torch.nan_to_num(values), **options)


@dataclass(frozen=True, eq=False)
class LossyResult(PowerResult):
    def to_dict(self):
        return {"power": round(self.power, 1) + 0.1}


@dataclass(frozen=True)
class Lossy(Power):
    result: ClassVar[type[Result]] = LossyResult

    def compute(self, accumulators, site):
        return LossyResult(accumulators["sums"].mean())


@dataclass(frozen=True)
class Against(Power):
    """Says that a sample lowers what it raises."""

    def influences(self, accumulators, result, samples):
        return Influences({"power": -samples.double().square().sum(1).numpy()})


BROKEN = [
    ("settings_round_trip", Unsettled),
    ("known_answers", Doubled),
    ("chunks_equal_one_shot", with_sums(PerBatch)),
    ("merge_is_associative", with_sums(Averaging)),
    ("merge_is_commutative", with_sums(Leftist)),
    ("merge_has_an_identity", with_sums(Losing)),
    ("merge_leaves_the_other", with_sums(Emptying)),
    ("order_does_not_matter", with_sums(Ordered)),
    ("nothing_is_kept_by_reference", with_sums(Keeping)),
    ("state_round_trips", with_sums(Forgetful)),
    ("low_precision_input_is_safe", with_sums(LowPrecision)),
    ("constant_input_is_honest", with_sums(Constant)),
    ("rank_one_input_is_honest", with_sums(Line)),
    ("few_samples_are_honest", with_sums(Moments)),
    ("nan_input_is_an_error", Hopeful),
    ("results_are_json", Lossy),
    ("influences_are_what_samples_do", Against),
]
assert dataclasses.is_dataclass(Power)
