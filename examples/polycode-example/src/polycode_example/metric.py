"""A metric: what it has to remember of the activations, and what it makes of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polycode_plugins import (
    Accumulator,
    Activations,
    DataError,
    Metric,
    Result,
    Site,
    StateError,
    pages,
)
from polycode_plugins.metrics import View


class Magnitudes(Accumulator):
    """Count, sum of |x| and sum of x^2 of every unit."""

    name = "magnitudes"

    def __init__(self) -> None:
        self.count = 0
        self.sums: Tensor | None = None  # float64 [2, units]: of |x| and of x^2

    def options(self) -> dict[str, Any]:
        """Nothing can be set."""
        return {}

    def update(self, activations: Activations) -> None:
        """Take in one batch. `matrix` leaves out what is masked, and is [samples, units]."""
        x = activations.matrix().double().abs()
        self._add(len(x), torch.stack([x.sum(0), x.square().sum(0)]).cpu())

    def merge(self, other: Self) -> None:
        """Sums add up: the order of batches, shards and machines does not matter."""
        if other.sums is not None:
            self._add(other.count, other.sums)

    def _add(self, count: int, sums: Tensor) -> None:
        if self.sums is not None and self.sums.shape != sums.shape:
            raise StateError(f"{sums.shape[1]} units cannot be added to {self.sums.shape[1]}")
        self.count += count
        self.sums = sums.clone() if self.sums is None else self.sums + sums

    def state(self) -> dict[str, Tensor]:
        """Everything seen so far, for safetensors."""
        sums = {} if self.sums is None else {"sums": self.sums.clone()}
        return {"count": torch.tensor(self.count)} | sums

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """What `state` returned; a saved file may be damaged, so it is looked at first."""
        count, sums = state.get("count"), state.get("sums")
        if count is None or (sums is not None and (sums.dim() != 2 or len(sums) != 2)):
            raise StateError("the saved magnitudes lack their count or have another shape")
        if sums is None and int(count):
            raise StateError("the saved magnitudes count samples and have no sums")
        self.count, self.sums = int(count), None if sums is None else sums.double().clone()

    @property
    def n_samples(self) -> int:
        """Samples taken in so far."""
        return self.count


@dataclass(frozen=True, eq=False, kw_only=True)
class SparsenessResult(Result):
    """How rarely units are active.

    Attributes:
        sparseness: 1 - mean(|x|)^2 / mean(x^2), averaged over the units that are ever active: 0 for
            units that always say the same, 1 - 1/n for units active on one of n samples.
        silent: share of units that are 0 on every sample; they have no sparseness.
        per_unit: float64 [units], NaN for silent ones.
        n_samples: samples seen.
    """

    reading: ClassVar[str] = "Near 1, a unit is active on few samples; near 0, equally on all."

    sparseness: float
    silent: float
    per_unit: NDArray[np.float64]
    n_samples: int

    @classmethod
    def chapter(cls, view: View) -> list[pages.Part]:
        """What every metric's chapter has, and under it the units of each site in order."""
        sorted_units = [np.sort(r.per_unit[np.isfinite(r.per_unit)])[::-1] for r in view.results]
        chart = pages.curves(
            f"{view.id}-units",
            "Sparseness of the units",
            "The units of each site, the sparsest first. A flat curve means that all are alike.",
            pages.Axis("unit, in order", whole=True),
            pages.Axis("sparseness", zero=True),
            [
                pages.Curve(site.name, list(range(1, len(units) + 1)), units.tolist())
                for site, units in zip(view.sites, sorted_units, strict=True)
            ],
        )
        return [*super().chapter(view), chart]

    def plot(self, ax: Any = None) -> Any:
        """A histogram over the units."""
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1] if ax is None else ax
        ax.hist(self.per_unit[np.isfinite(self.per_unit)], bins=20, range=(0, 1))
        ax.set_xlabel("sparseness")
        ax.set_ylabel("units")
        return ax


@dataclass(frozen=True)
class Sparseness(Metric):
    """Lifetime sparseness of units (Treves & Rolls 1991), as 1 - a: higher is sparser."""

    name: ClassVar[str] = "sparseness"
    result: ClassVar[type[Result]] = SparsenessResult

    def accumulators(self) -> Mapping[str, Accumulator]:
        """Fresh ones; metrics that need equal ones share them."""
        return {"magnitudes": Magnitudes()}

    def compute(self, accumulators: Mapping[str, Accumulator], site: Site) -> SparsenessResult:
        """The sparseness at one site.

        Raises:
            DataError: where every activation is 0.
        """
        seen = accumulators["magnitudes"]
        assert isinstance(seen, Magnitudes)
        if seen.sums is None or not bool(seen.sums.any()):
            raise DataError(
                f"the activations are all 0 over {seen.count} samples, so they have no sparseness; "
                "leave this site out"
            )
        mean, square = (seen.sums / seen.count).numpy()
        active = square > 0
        per_unit = np.full(len(square), np.nan)
        per_unit[active] = 1 - mean[active] ** 2 / square[active]
        return SparsenessResult(
            sparseness=float(per_unit[active].mean()),
            silent=float(1 - active.mean()),
            per_unit=per_unit,
            n_samples=seen.count,
        )
